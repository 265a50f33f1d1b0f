//! What of an object has changed, told in one signal.

use std::borrow::Cow;
use std::collections::HashMap;

use zbus::object_server::{Interface, SignalEmitter};
use zbus::{OwnedVariant, Variant, fdo};

pub(super) type Properties = HashMap<String, OwnedVariant>;

/// All properties of an object whose changes are told, as `GetAll` would answer.
pub(super) async fn properties<I: Interface>(
    object: &I,
    emitter: &SignalEmitter<'_>,
) -> zbus::Result<Properties> {
    let connection = emitter.connection();
    let server = connection.object_server();
    let mut all = object.get_all(server, connection, None, emitter).await?;
    all.remove(UNTOLD);
    Ok(all)
}

/// The property that is another one at every call.
const UNTOLD: &str = "Traffic";

/// Sends what differs as one `PropertiesChanged`, or nothing.
pub(super) async fn announce<I: Interface>(
    emitter: &SignalEmitter<'_>,
    before: &Properties,
    after: &Properties,
) -> zbus::Result<()> {
    let mut changed = HashMap::new();
    for (name, value) in after {
        if before.get(name) != Some(value) {
            changed.insert(name.as_str(), Variant::try_from(value)?);
        }
    }
    if changed.is_empty() {
        return Ok(());
    }
    let gone = Cow::Borrowed([].as_slice());
    fdo::Properties::properties_changed(emitter, I::name(), changed, gone).await
}
