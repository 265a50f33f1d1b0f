//! What was moved and dropped, in a line for people.

/// Such as `sent 1.2 GB, received 3.4 MB, dropped 7: 5 no route, 2 expired`, from numbers by their
/// names. Names that it does not need may come.
pub(super) fn line(named: &[(&str, u64)]) -> String {
    let value = |name| {
        let found = named.iter().find(|(known, _)| *known == name);
        found.map_or(0, |(_, value)| *value)
    };
    let causes = named
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("dropped-")?, *value)))
        .filter(|(_, value)| *value > 0);
    let all: u64 = causes
        .clone()
        .fold(0, |sum, (_, value)| sum.saturating_add(value));
    let causes: Vec<_> = causes
        .map(|(cause, value)| format!("{value} {}", cause.replace('-', " ")))
        .collect();
    let dropped = if causes.is_empty() {
        "none".to_owned()
    } else {
        format!("{all}: {}", causes.join(", "))
    };
    let (sent, received) = (size(value("sent-bytes")), size(value("received-bytes")));
    format!("sent {sent}, received {received}, dropped {dropped}")
}

/// Bytes in powers of 1000, rounded down.
fn size(bytes: u64) -> String {
    let power = bytes.checked_ilog10().unwrap_or(0) / 3;
    let unit = ["B", "kB", "MB", "GB", "TB", "PB", "EB"][power as usize];
    if power == 0 {
        return format!("{bytes} {unit}");
    }
    let tenths = bytes / 10_u64.pow(3 * power - 1);
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests;
