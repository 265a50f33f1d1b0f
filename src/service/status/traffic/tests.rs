use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::*;

/// The names and values of a document, with those of D-Bus.
fn kebab(json: &Value) -> BTreeMap<String, u64> {
    let entries = json.as_object().unwrap().iter();
    entries
        .map(|(name, value)| (name.replace('_', "-"), value.as_u64().unwrap()))
        .collect()
}

fn owned(named: &[(&str, u64)]) -> BTreeMap<String, u64> {
    named
        .iter()
        .map(|(name, value)| ((*name).to_owned(), *value))
        .collect()
}

#[test]
fn every_number_has_one_name_in_json_and_on_the_bus() {
    let counters = Counters {
        sent_packets: 1,
        sent_bytes: 2,
        received_packets: 3,
        received_bytes: 4,
        no_route: 5,
        unreachable_sent: 6,
        malformed: 7,
        other_version: 8,
        expired: 9,
        too_big: 10,
        too_big_for_path: 11,
        too_big_answered: 12,
        buffer_full: 13,
        send_errors: 14,
        receive_errors: 15,
        device_errors: 16,
        spoofed: 17,
    };
    let traffic = Traffic::from(counters);
    let named = owned(&traffic.named());
    assert_eq!(named, kebab(&serde_json::to_value(traffic).unwrap()));
    let values: BTreeSet<_> = named.values().copied().collect();
    assert_eq!(values, (1..=17).collect(), "each once");

    let traffic = PeerTraffic::from(PeerCounters {
        sent_packets: 1,
        sent_bytes: 2,
        received_packets: 3,
        received_bytes: 4,
        send_errors: 5,
        too_big: 6,
    });
    let named = owned(&traffic.named());
    assert_eq!(named, kebab(&serde_json::to_value(traffic).unwrap()));
    let values: BTreeSet<_> = named.values().copied().collect();
    assert_eq!(values, (1..=6).collect(), "each once");
}

#[test]
fn another_version_may_know_more_or_less() {
    let read: Traffic = serde_json::from_str(r#"{"sent_packets": 7, "moon": 1}"#).unwrap();
    let expected = Traffic {
        sent_packets: 7,
        ..Traffic::default()
    };
    assert_eq!(read, expected);
}
