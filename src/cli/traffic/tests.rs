use super::*;

#[test]
fn what_was_dropped_is_told_with_its_causes() {
    let mut named = vec![
        ("sent-packets", 9),
        ("sent-bytes", 1_234_567),
        ("received-bytes", 999),
        ("dropped-no-route", 0),
        ("dropped-expired", 0),
        ("receive-errors", 5),
    ];
    assert_eq!(line(&named), "sent 1.2 MB, received 999 B, dropped none");
    named.extend([("dropped-too-big-for-path", 2), ("dropped-full-moon", 40)]);
    assert_eq!(
        line(&named),
        "sent 1.2 MB, received 999 B, dropped 42: 2 too big for path, 40 full moon"
    );
    named.extend([("dropped-all", u64::MAX)]);
    assert!(line(&named).contains("dropped 18446744073709551615: "));
    assert_eq!(line(&[]), "sent 0 B, received 0 B, dropped none");
}

#[test]
fn sizes_have_a_unit_and_a_decimal() {
    let sizes = [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1999, "1.9 kB"),
        (999_999, "999.9 kB"),
        (1_000_000, "1.0 MB"),
        (12_345_678_901, "12.3 GB"),
        (u64::MAX, "18.4 EB"),
    ];
    for (bytes, expected) in sizes {
        assert_eq!(size(bytes), expected);
    }
}
