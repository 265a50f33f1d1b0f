//! What a person may have to agree to before it is done, with what the dialog says.

use std::collections::BTreeMap;

use zbus::Connection;
use zbus::message::Header;

use super::Manager;
use crate::service::dbus::authority::{Action, Request};
use crate::service::dbus::orders;
use crate::service::dbus::refusal::Refusal;
use crate::service::dbus::text;
use crate::service::status::Command;

impl Manager {
    /// For an action of which there is no more to say than its name.
    pub(super) async fn allow(
        &self,
        action: Action,
        call: &Header<'_>,
        connection: &Connection,
    ) -> Result<(), Refusal> {
        let request = Request {
            action,
            details: BTreeMap::new(),
            call,
            connection,
        };
        self.orders.allow(request).await
    }

    /// `Renumber`.
    pub(super) async fn move_to(
        &self,
        subnet: &str,
        call: &Header<'_>,
        connection: &Connection,
    ) -> Result<String, Refusal> {
        let asked = match subnet {
            "" => None,
            text => Some(orders::subnet(text)?),
        };
        let named = asked.map(|subnet| subnet.to_string());
        let mut details = BTreeMap::new();
        if let Some(subnet) = &named {
            details.insert("subnet", subnet.as_str());
            details.insert("polkit.message", "Authentication is required to move the containers of this host to the subnet $(subnet).");
        }
        let request = Request {
            action: Action::Renumber,
            details,
            call,
            connection,
        };
        self.orders.allow(request).await?;
        let renumber = |answer| Command::Renumber(asked, answer);
        let taken = self.orders.ask(renumber).await??;
        Ok(taken.to_string())
    }

    /// `ReleaseLease`.
    pub(super) async fn give_back(
        &self,
        call: &Header<'_>,
        connection: &Connection,
    ) -> Result<String, Refusal> {
        let current = || self.current.borrow().subnet.as_deref().map(text);
        let subnet = current();
        let mut details = BTreeMap::new();
        if let Some(subnet) = &subnet {
            details.insert("subnet", subnet.as_str());
            details.insert("polkit.message", "Authentication is required to give the subnet $(subnet) back and to take this host out of the overlay network.");
        }
        let request = Request {
            action: Action::Release,
            details,
            call,
            connection,
        };
        self.orders.allow(request).await?;
        let now = current();
        if now != subnet {
            let named = |subnet: &Option<String>| subnet.clone().unwrap_or("none".to_owned());
            return Err(Refusal::Failed(format!(
                "nothing was released: the subnet was {} when it was asked for, and is {} now; call again",
                named(&subnet),
                named(&now)
            )));
        }
        let released = self.orders.ask(Command::Release).await??;
        Ok(released.to_string())
    }
}
