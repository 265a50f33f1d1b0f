//! What a method answers when it does not do what was asked.

use zbus::message::{Header, Message};
use zbus::names::ErrorName;
use zbus::{DBusError, Result};

use super::text;
use crate::service::status::RenumberError;

/// An error reply. Written out, as one of the names is not ours: a derived one has one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The caller may not do this.
    NotAuthorized(String),
    /// The caller may do it once somebody has proven who they are, and did not say that there is
    /// anybody to be asked.
    InteractiveAuthorizationRequired(String),
    /// It went wrong; the text says what and why.
    Failed(String),
    /// The service is stopping.
    Unavailable(String),
    /// The argument is not a subnet.
    InvalidSubnet(String),
    /// The node has the subnet that it should have.
    NothingToRenumber(String),
    /// The subnet is not one of the network.
    OutsideNetwork(String),
    /// Somebody has the subnet.
    SubnetTaken(String),
    /// The argument is not a log level.
    InvalidLogLevel(String),
}

impl Refusal {
    /// Its name on the bus and what it says.
    const fn parts(&self) -> (&'static str, &String) {
        match self {
            Self::NotAuthorized(said) => ("org.flannelrs.Flannel1.Error.NotAuthorized", said),
            Self::InteractiveAuthorizationRequired(said) => (
                "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
                said,
            ),
            Self::Failed(said) => ("org.flannelrs.Flannel1.Error.Failed", said),
            Self::Unavailable(said) => ("org.flannelrs.Flannel1.Error.Unavailable", said),
            Self::InvalidSubnet(said) => ("org.flannelrs.Flannel1.Error.InvalidSubnet", said),
            Self::NothingToRenumber(said) => {
                ("org.flannelrs.Flannel1.Error.NothingToRenumber", said)
            }
            Self::OutsideNetwork(said) => ("org.flannelrs.Flannel1.Error.OutsideNetwork", said),
            Self::SubnetTaken(said) => ("org.flannelrs.Flannel1.Error.SubnetTaken", said),
            Self::InvalidLogLevel(said) => ("org.flannelrs.Flannel1.Error.InvalidLogLevel", said),
        }
    }
}

impl DBusError for Refusal {
    fn create_reply(&self, call: &Header<'_>) -> Result<Message> {
        let (name, said) = self.parts();
        Message::error(call, name).build(&text(said))
    }

    fn name(&self) -> ErrorName<'_> {
        ErrorName::from_static_str_unchecked(self.parts().0)
    }

    fn description(&self) -> Option<&str> {
        Some(self.parts().1)
    }
}

impl From<String> for Refusal {
    fn from(cause: String) -> Self {
        Self::Failed(cause)
    }
}

impl From<RenumberError> for Refusal {
    fn from(error: RenumberError) -> Self {
        let cause = error.to_string();
        match error {
            RenumberError::NothingToRenumber(_) => Self::NothingToRenumber(cause),
            RenumberError::OutsideNetwork { .. } => Self::OutsideNetwork(cause),
            RenumberError::SubnetTaken { .. } => Self::SubnetTaken(cause),
            RenumberError::NoLease | RenumberError::UnderWay | RenumberError::Failed(_) => {
                Self::Failed(cause)
            }
        }
    }
}
