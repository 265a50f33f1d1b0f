//! What the udp backend is to reach, each as a ratio within one run.

use std::fmt;

use crate::contestant::Entry;
use crate::measure::{Figures, Measure, number};

/// The udp backend's figure over another's is to be at least, or at most, so much.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Goal {
    measure: Measure,
    other: Entry,
    bound: Bound,
}

#[derive(Debug, Clone, Copy)]
enum Bound {
    Least(f64),
    Most(f64),
}

impl Goal {
    pub(crate) const ALL: &[Self] = &[
        Self::new(Measure::TcpOne, Entry::FlanneldUdp, Bound::Least(20.0)),
        Self::new(Measure::TcpFour, Entry::FlanneldUdp, Bound::Least(20.0)),
        Self::new(Measure::TcpBoth, Entry::FlanneldUdp, Bound::Least(20.0)),
        Self::new(Measure::TcpOne, Entry::Vxlan, Bound::Least(0.8)),
        Self::new(Measure::TcpFour, Entry::Vxlan, Bound::Least(0.8)),
        Self::new(Measure::TcpBoth, Entry::Vxlan, Bound::Least(0.8)),
        Self::new(Measure::Small, Entry::FlanneldUdp, Bound::Least(5.0)),
        Self::new(Measure::SmallFour, Entry::FlanneldUdp, Bound::Least(5.0)),
        Self::new(Measure::IdleMedian, Entry::FlanneldUdp, Bound::Most(1.0)),
        Self::new(Measure::IdleTail, Entry::FlanneldUdp, Bound::Most(1.0)),
        Self::new(Measure::Processor, Entry::FlanneldUdp, Bound::Most(0.1)),
    ];

    const fn new(measure: Measure, other: Entry, bound: Bound) -> Self {
        Self {
            measure,
            other,
            bound,
        }
    }

    /// What was reached; `None` if it was not measured, or one of the two took no part.
    pub(crate) fn figure(self, figures: &Figures) -> Option<f64> {
        figures.ratio(Entry::Udp, self.other, self.measure)
    }

    pub(crate) fn met(self, figure: f64) -> bool {
        match self.bound {
            Bound::Least(least) => figure >= least,
            Bound::Most(most) => figure <= most,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = if self.other.is_flanneld() {
            "flanneld's "
        } else {
            ""
        };
        let (direction, bound) = match self.bound {
            Bound::Least(least) => ("at least", least),
            Bound::Most(most) => ("at most", most),
        };
        write!(
            f,
            "{}: {direction} {} × {program}{}",
            self.measure.title(),
            number(bound).trim_end_matches('0').trim_end_matches('.'),
            self.other.label()
        )
    }
}
