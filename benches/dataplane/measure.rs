//! What is measured, and the figures.

use std::collections::BTreeMap;

use crate::contestant::Entry;

/// A figure that each contestant has, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Measure {
    TcpOne,
    TcpFour,
    TcpBoth,
    Small,
    SmallOffered,
    SmallFour,
    SmallFourOffered,
    Middle,
    MiddleOffered,
    Large,
    LargeOffered,
    IdleMedian,
    IdleTail,
    LoadedMedian,
    LoadedTail,
    Processor,
}

impl Measure {
    pub(crate) const ALL: [Self; 16] = [
        Self::TcpOne,
        Self::TcpFour,
        Self::TcpBoth,
        Self::Small,
        Self::SmallOffered,
        Self::SmallFour,
        Self::SmallFourOffered,
        Self::Middle,
        Self::MiddleOffered,
        Self::Large,
        Self::LargeOffered,
        Self::IdleMedian,
        Self::IdleTail,
        Self::LoadedMedian,
        Self::LoadedTail,
        Self::Processor,
    ];

    /// Its name in JSON.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::TcpOne => "tcp_one_stream",
            Self::TcpFour => "tcp_four_streams",
            Self::TcpBoth => "tcp_both_directions",
            Self::Small => "udp_64",
            Self::SmallOffered => "udp_64_offered",
            Self::SmallFour => "udp_64_four_flows",
            Self::SmallFourOffered => "udp_64_four_flows_offered",
            Self::Middle => "udp_512",
            Self::MiddleOffered => "udp_512_offered",
            Self::Large => "udp_1400",
            Self::LargeOffered => "udp_1400_offered",
            Self::IdleMedian => "round_trip_idle_p50",
            Self::IdleTail => "round_trip_idle_p99",
            Self::LoadedMedian => "round_trip_loaded_p50",
            Self::LoadedTail => "round_trip_loaded_p99",
            Self::Processor => "processor_per_gigabyte",
        }
    }

    /// Its name for people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::TcpOne => "TCP, one stream",
            Self::TcpFour => "TCP, four streams",
            Self::TcpBoth => "TCP, both directions",
            Self::Small => "UDP, 64 bytes",
            Self::SmallFour => "UDP, 64 bytes, four flows",
            Self::Middle => "UDP, 512 bytes",
            Self::Large => "UDP, 1400 bytes",
            Self::SmallOffered
            | Self::SmallFourOffered
            | Self::MiddleOffered
            | Self::LargeOffered => "  of these were offered",
            Self::IdleMedian => "round trip, idle, p50",
            Self::IdleTail => "round trip, idle, p99",
            Self::LoadedMedian => "round trip beside TCP, p50",
            Self::LoadedTail => "round trip beside TCP, p99",
            Self::Processor => "processor time, one stream",
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::TcpOne | Self::TcpFour | Self::TcpBoth => "Gbit/s",
            Self::Small
            | Self::SmallFour
            | Self::Middle
            | Self::Large
            | Self::SmallOffered
            | Self::SmallFourOffered
            | Self::MiddleOffered
            | Self::LargeOffered => "1000/s",
            Self::IdleMedian | Self::IdleTail | Self::LoadedMedian | Self::LoadedTail => "µs",
            Self::Processor => "s/GB",
        }
    }

    /// Whether it says what was asked of the contestant, not what became of it.
    pub(crate) fn is_offered(self) -> bool {
        self.key().ends_with("_offered")
    }

    pub(crate) fn is_better_high(self) -> bool {
        matches!(self.unit(), "Gbit/s" | "1000/s")
    }
}

/// All that was measured, by contestant; of each measure a value from each round.
#[derive(Debug, Default)]
pub(crate) struct Figures(BTreeMap<Entry, BTreeMap<Measure, Vec<f64>>>);

impl Figures {
    pub(crate) fn add(&mut self, entry: Entry, measure: Measure, value: f64) {
        let of_entry = self.0.entry(entry).or_default();
        of_entry.entry(measure).or_default().push(value);
    }

    /// Who took part.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.0.keys().copied().collect()
    }

    /// All values of a measure, in the order of the rounds.
    pub(crate) fn values(&self, entry: Entry, measure: Measure) -> &[f64] {
        let found = self.0.get(&entry).and_then(|all| all.get(&measure));
        found.map_or(&[], Vec::as_slice)
    }

    /// The median over the rounds.
    pub(crate) fn figure(&self, entry: Entry, measure: Measure) -> Option<f64> {
        let mut values = self.values(entry, measure).to_vec();
        values.sort_unstable_by(f64::total_cmp);
        let above = *values.get(values.len() / 2)?;
        let below = values[(values.len() - 1) / 2];
        Some(f64::midpoint(below, above))
    }

    /// What one has of a measure, over what another has.
    pub(crate) fn ratio(&self, one: Entry, other: Entry, measure: Measure) -> Option<f64> {
        Some(self.figure(one, measure)? / self.figure(other, measure)?)
    }
}

/// A figure with as many digits as are of interest.
pub(crate) fn number(value: f64) -> String {
    let decimals = match value.abs() {
        0.0..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    let plain = format!("{value:.decimals$}");
    match plain.len().checked_sub(3) {
        Some(thousands @ 1..) if decimals == 0 => {
            format!("{},{}", &plain[..thousands], &plain[thousands..])
        }
        _ => plain,
    }
}
