use super::*;
use crate::doctor::{Finding, Omission};

#[test]
fn a_page_has_each_finding_with_its_fix_and_what_was_left_out() {
    let diagnosis = Diagnosis {
        findings: vec![Finding {
            code: "forwarding".to_owned(),
            about: "ip_forward\u{1b}".to_owned(),
            text: "the kernel forwards no packets".to_owned(),
            fix: "sysctl -w net.ipv4.ip_forward=1".to_owned(),
        }],
        omitted: vec![Omission {
            what: "real packets".to_owned(),
            why: "--no-probes was given".to_owned(),
        }],
        vantage: Some("this host itself".to_owned()),
    };
    assert_eq!(
        page(&diagnosis, Palette::Plain),
        "forwarding: ip_forward\u{fffd}\n  the kernel forwards no packets\n  fix: sysctl -w \
         net.ipv4.ip_forward=1\n\nnot looked at: real packets: --no-probes was given\npackets were \
         sent from this host itself\n"
    );
    let nothing = page(&Diagnosis::default(), Palette::Plain);
    assert_eq!(nothing, "nothing found\n");
}
