//! Attributes of nf_tables messages: type, length, value, in big-endian numbers.

/// Attributes to be sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Writer(pub(super) Vec<u8>);

/// Attributes that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

const HEADER: usize = 4;
const NESTED: u16 = 0x8000;
/// The upper two bits are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const KIND: u16 = 0x3fff;

impl Writer {
    pub(super) fn value(mut self, kind: u16, value: &[u8]) -> Self {
        // Longest is a list of elements, cut to size by who sends it.
        let length = u16::try_from(HEADER + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(HEADER), 0);
        self
    }

    pub(super) fn text(self, kind: u16, text: &str) -> Self {
        let mut value = text.as_bytes().to_vec();
        value.push(0);
        self.value(kind, &value)
    }

    pub(super) fn number(self, kind: u16, number: u32) -> Self {
        self.value(kind, &number.to_be_bytes())
    }

    pub(super) fn nested(self, kind: u16, inner: &Self) -> Self {
        self.value(kind | NESTED, &inner.0)
    }
}

impl<'a> Reader<'a> {
    /// Ends at the first that is cut off.
    pub(super) fn each(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let [a, b, c, d] = *rest.first_chunk::<HEADER>()?;
            let length = usize::from(u16::from_ne_bytes([a, b]));
            let value = rest.get(HEADER..length)?;
            let next = length.next_multiple_of(HEADER);
            rest = rest.get(next..).unwrap_or_default();
            Some((u16::from_ne_bytes([c, d]) & KIND, value))
        })
    }

    pub(super) fn value(self, kind: u16) -> Option<&'a [u8]> {
        let mut all = self.each();
        all.find_map(|(found, value)| (found == kind).then_some(value))
    }

    pub(super) fn nested(self, kind: u16) -> Option<Self> {
        self.value(kind).map(Self)
    }

    pub(super) fn number(self, kind: u16) -> Option<u32> {
        let value = self.value(kind)?.try_into().ok()?;
        Some(u32::from_be_bytes(value))
    }

    pub(super) fn long(self, kind: u16) -> Option<u64> {
        let value = self.value(kind)?.try_into().ok()?;
        Some(u64::from_be_bytes(value))
    }

    pub(super) fn text(self, kind: u16) -> Option<&'a str> {
        text(self.value(kind)?)
    }
}

/// Up to the first NUL, as C reads it.
pub(super) fn text(value: &[u8]) -> Option<&str> {
    let end = value.iter().position(|byte| *byte == 0);
    str::from_utf8(value.get(..end.unwrap_or(value.len()))?).ok()
}
