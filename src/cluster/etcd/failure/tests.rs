use super::*;

/// A status code, its text, whom it concerns, and what a person is told.
const ANSWERS: &[(i32, &str, Cause, &str)] = &[
    (14, "etcdserver: no leader", Cause::Unreachable, "no leader"),
    (
        14,
        "etcdserver: request timed out",
        Cause::Unreachable,
        "request timed out",
    ),
    (
        5,
        "etcdserver: requested lease not found",
        Cause::Unreachable,
        "requested lease",
    ),
    (
        8,
        "etcdserver: too many requests",
        Cause::Unreachable,
        "too many requests",
    ),
    (
        8,
        "etcdserver: mvcc: database space exceeded",
        Cause::Full,
        "alarm disarm",
    ),
    (
        7,
        "etcdserver: permission denied",
        Cause::Refused,
        "may not use the prefix",
    ),
    (
        16,
        "etcdserver: invalid auth token",
        Cause::Unreachable,
        "auth token",
    ),
    (
        3,
        "etcdserver: revision of auth store is old",
        Cause::Unreachable,
        "is old",
    ),
    (
        3,
        "etcdserver: user name is empty",
        Cause::Refused,
        "give a user name",
    ),
    (
        9,
        "etcdserver: authentication is not enabled",
        Cause::NoLogin,
        "etcd has none",
    ),
    (
        11,
        "etcdserver: mvcc: required revision has been compacted",
        Cause::Compacted,
        "",
    ),
    (
        11,
        "Error, decoded message length too large: found 9",
        Cause::Corrupt,
        "else",
    ),
    (12, "", Cause::Misfit, "not an etcd"),
];

#[test]
fn what_etcd_answers_is_blamed_on_who_can_help() {
    for (code, text, cause, part) in ANSWERS {
        let failure = of_status(*code, text);
        assert_eq!(failure.cause, *cause, "{text}");
        assert!(failure.reason.contains(part), "{}", failure.reason);
    }
}

#[test]
fn what_never_left_is_not_in_doubt_and_what_was_slow_is_not_repeated() {
    for (text, unsure, quick) in [
        ("Connection refused (os error 111)", false, true),
        ("Network is unreachable (os error 101)", true, true),
        ("deadline has elapsed", false, false),
        ("stream closed because of a broken pipe", true, true),
        ("keep-alive timed out", true, false),
    ] {
        let failure = of_connection(text);
        assert_eq!(
            (failure.is_unsure(), failure.is_quick()),
            (unsure, quick),
            "{text}"
        );
    }
    let silent = Failure::no_answer(Duration::from_secs(3));
    assert!(silent.is_unsure() && !silent.is_quick());
}

#[test]
fn a_reason_is_one_short_line() {
    assert_eq!(
        line("Connection refused (os error 111)"),
        "connection refused"
    );
    assert_eq!(line("TLS broke\n\tbadly"), "TLS broke badly");
    assert_eq!(line(&"é".repeat(1000)).chars().count(), 200);
    assert_eq!(line(""), "");
}

#[test]
fn all_endpoints_are_named_and_the_one_to_act_upon_decides() {
    let refused = of_connection("Connection refused").at("http://a:1");
    let misfit = of_connection("invalid peer certificate: UnknownIssuer").at("https://b:2");
    let all = Failure::of_all([misfit, refused].into_iter());
    assert!(
        all.reason.starts_with("etcd at https://b:2: ")
            && all.reason.contains("; etcd at http://a:1: ")
    );
    assert!(matches!(all.while_doing("x"), StoreError::Refused { .. }));
}
