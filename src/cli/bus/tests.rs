use zbus::Message;
use zbus::names::OwnedErrorName;

use super::*;
use crate::service::dbus;

/// What an error reply with this name means.
fn meaning(name: &str) -> Error {
    let call = Message::method_call("/", "M");
    let call = call.build(&()).unwrap();
    let reply = Message::error(&call.header(), name);
    let reply = reply.build(&"why").unwrap();
    let name = OwnedErrorName::try_from(name).unwrap();
    no_answer(&zbus::Error::MethodError(
        name,
        Some("why".to_owned()),
        reply,
    ))
}

#[test]
fn the_service_answers_before_anybody_gives_up() {
    const DOCUMENT: &str = include_str!("../../../docs/dbus.md");
    // the bus says who the caller is before and after the question
    let service = dbus::PERSON + 3 * dbus::ANSWER_LIMIT;
    assert!(PERSON >= service, "{PERSON:?}");
    let documented = format!("--timeout={} ", PERSON.as_secs());
    assert!(DOCUMENT.contains(&documented), "no {documented}");
    assert!(PATIENCE > dbus::ANSWER_LIMIT);
}

#[test]
fn errors_of_the_service_are_told_apart() {
    let own = |kind: &str| meaning(&format!("{ERROR_PREFIX}.{kind}"));
    assert!(matches!(own("NotAuthorized"), Error::NotPermitted(why) if why == "why"));
    assert!(matches!(own("Unavailable"), Error::Silent(why) if why == "why"));
    for kind in ["InvalidSubnet", "InvalidLogLevel"] {
        assert!(matches!(own(kind), Error::Argument(why) if why == "why"));
    }
    for kind in [
        "Failed",
        "NothingToRenumber",
        "OutsideNetwork",
        "SubnetTaken",
        "OneOfAnotherVersion",
    ] {
        assert!(matches!(own(kind), Error::Refused(why) if why == "why"));
    }
}

#[test]
fn errors_of_the_bus_are_told_apart() {
    let standard = |kind: &str| meaning(&format!("org.freedesktop.DBus.Error.{kind}"));
    for kind in ["ServiceUnknown", "NameHasNoOwner"] {
        assert!(matches!(standard(kind), Error::NotRunning), "{kind}");
    }
    for kind in ["AccessDenied", "InteractiveAuthorizationRequired"] {
        assert!(matches!(standard(kind), Error::NotPermitted(_)), "{kind}");
    }
    assert!(matches!(standard("UnknownMethod"), Error::Answer(_)));
    assert!(matches!(standard("NoReply"), Error::Silent(_)));
    assert!(matches!(meaning("org.example.Other"), Error::Silent(_)));
}
