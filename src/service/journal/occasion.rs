//! What somebody who watches over many machines may want to be told of, each with a number of its
//! own. `docs/journal.md` and the message catalog describe them.

/// An occasion for a log line that can be filtered by: `journalctl MESSAGE_ID=…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Occasion {
    /// The service has begun.
    Started,
    /// The node takes part in the network.
    Ready,
    /// The service was told to end.
    Stopping,
    /// A subnet was taken.
    LeaseAcquired,
    /// The lease was written anew, as it must be from time to time.
    LeaseRenewed,
    /// The lease was gone or somebody had changed it; it was written again.
    LeaseRetaken,
    /// The lease was given back.
    LeaseReleased,
    /// The node takes no part in the network any more.
    Withdrawn,
    /// The node has moved to another subnet.
    Renumbered,
    /// Somebody else holds the own subnet, or writes the own lease.
    SubnetConflict,
    /// The datastore does not answer.
    DatastoreLost,
    /// The datastore answers again.
    DatastoreBack,
    /// The datastore came back with fewer peers than there were; they are kept for a while.
    PeersKept,
    /// Something else is wrong.
    FaultRaised,
    /// Something that was wrong is right again.
    FaultCleared,
    /// What somebody else had changed in the kernel was put right.
    DriftRepaired,
    /// Another network config is in force.
    NetworkChanged,
    /// Another interface or address leads to the other nodes.
    UplinkChanged,
    /// The host config was read again.
    Reloaded,
    /// The host config, or a part of it, was not applied.
    ReloadRefused,
    /// Another log level is in force.
    LogLevelChanged,
    /// Log lines were lost.
    LinesLost,
}

impl Occasion {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 22] = [
        Self::Started,
        Self::Ready,
        Self::Stopping,
        Self::LeaseAcquired,
        Self::LeaseRenewed,
        Self::LeaseRetaken,
        Self::LeaseReleased,
        Self::Withdrawn,
        Self::Renumbered,
        Self::SubnetConflict,
        Self::DatastoreLost,
        Self::DatastoreBack,
        Self::PeersKept,
        Self::FaultRaised,
        Self::FaultCleared,
        Self::DriftRepaired,
        Self::NetworkChanged,
        Self::UplinkChanged,
        Self::Reloaded,
        Self::ReloadRefused,
        Self::LogLevelChanged,
        Self::LinesLost,
    ];

    /// The name in the documentation.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.entry().0
    }

    /// The `MESSAGE_ID`. People's filters and alerts are made of these: none ever changes, and
    /// none is used again.
    #[must_use]
    pub const fn id(self) -> &'static str {
        self.entry().1
    }

    const fn entry(self) -> (&'static str, &'static str) {
        match self {
            Self::Started => ("started", "828045194d70418eadbc8e336f6a623f"),
            Self::Ready => ("ready", "1a53821458444e6eae4bd2b7fd6cedcc"),
            Self::Stopping => ("stopping", "fb5001c08df74829a5e06268cab8a339"),
            Self::LeaseAcquired => ("lease-acquired", "c47534805c304ae980d944bfd5e2dfdb"),
            Self::LeaseRenewed => ("lease-renewed", "81f5b0e55c4c48a59cfe1ec2b1e2986b"),
            Self::LeaseRetaken => ("lease-retaken", "0987a75cb0ba4c01a06a43ad47c7657f"),
            Self::LeaseReleased => ("lease-released", "99ad6f6e034245ff85773e5fef7980e0"),
            Self::Withdrawn => ("withdrawn", "307d2ddf56d541a183d0def6e01b6cc1"),
            Self::Renumbered => ("renumbered", "e2ef4c2ad55745d88458eb35f3ffaf99"),
            Self::SubnetConflict => ("subnet-conflict", "d7bd2f0ac8114a0eabde73f8b4e31a1b"),
            Self::DatastoreLost => ("datastore-lost", "bc0be4b518ee4110bfc7e387efef6950"),
            Self::DatastoreBack => ("datastore-back", "bd40bd12d0364c1d8c3a74f0e759c5cb"),
            Self::PeersKept => ("peers-kept", "65456b6c2ae541f6b0cda8563164ed2b"),
            Self::FaultRaised => ("fault-raised", "cc5e35fed29f46e1bb32f9bf12ac8ffa"),
            Self::FaultCleared => ("fault-cleared", "e6c049a4c576416d883e07bad01d711f"),
            Self::DriftRepaired => ("drift-repaired", "2e7f1701e9ae45b18db859567c8b3373"),
            Self::NetworkChanged => ("network-changed", "b1788594c2d64a25a75afcaa9876b6ab"),
            Self::UplinkChanged => ("uplink-changed", "d5535663a7174e40a340ba559dae911f"),
            Self::Reloaded => ("reloaded", "9a7f11ebd904474e93c0816722e014bc"),
            Self::ReloadRefused => ("reload-refused", "c12c961dec7148a999fa1a2103a8b220"),
            Self::LogLevelChanged => ("log-level-changed", "f8ae53bab6a44be48dfb0a3ea13bae0c"),
            Self::LinesLost => ("lines-lost", "cfbad4a1db7b40b38ed59f0b47c633c2"),
        }
    }
}
