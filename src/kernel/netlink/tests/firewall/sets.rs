//! Members come and go.

use super::*;

/// What the counted rules have counted, by their comments.
fn counts() -> Vec<(String, u64)> {
    let rules = run("nft", "list table ip flannel-rs");
    let count = |line: &str| {
        let (_, counted) = line.split_once("counter packets ")?;
        let (packets, _) = counted.split_once(' ')?;
        let comment = line.split('"').nth(1)?;
        Some((comment.to_owned(), packets.parse().unwrap()))
    };
    let mut counts: Vec<_> = rules.lines().filter_map(count).collect();
    counts.sort();
    counts
}

/// A datagram to the tunnel's port, from the host's own first address.
fn knock() {
    let socket = std::net::UdpSocket::bind("192.168.5.1:0").unwrap();
    socket.send_to(b"?", "192.168.5.1:8472").unwrap();
}

#[test]
fn members_change_while_counters_stand() {
    in_namespace(|| async {
        let mut kernel = Netlink::connect().unwrap();
        made(&mut kernel, Step::PutTable(sample(3))).await;
        let name = |text: &str| text.to_owned();
        knock();
        let mut expected = [
            (name("no peer"), 1),
            (name("not from there"), 0),
            (name("out"), 0),
            (name("within the network"), 0),
        ];
        expected.sort();
        assert_eq!(counts(), expected);
        for count in [5, 0, 2, 2] {
            made(&mut kernel, Step::PutMembers(name("peers"), hosts(count))).await;
            let members = origins(count);
            made(&mut kernel, Step::PutMembers(name("origins"), members)).await;
            assert_eq!(seen(&mut kernel).await, table_seen(sample(count)));
            assert_eq!(counts(), expected, "{count}");
        }
        // A wider subnet of the same host in the place of one within it, in one go.
        let host = Ipv4Addr::new(192, 168, 0, 1);
        let wide = Set::Origins([(host, net("100.96.0.0/20"))].into());
        made(&mut kernel, Step::PutMembers(name("origins"), wide.clone())).await;
        let table = seen(&mut kernel).await.table.unwrap();
        assert_eq!(table.sets["origins"], wide);
    });
}

#[test]
fn a_set_that_is_not_there_is_a_failure() {
    in_namespace(|| async {
        let mut kernel = Netlink::connect().unwrap();
        let step = Step::PutMembers("peers".to_owned(), hosts(1));
        let failures = tried(&mut kernel, step).await;
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert!(failures[0].reason.contains("set peers"), "{failures:?}");
    });
}

#[test]
fn ten_thousand_peers() {
    in_namespace(|| async {
        let mut kernel = Netlink::connect().unwrap();
        let mut times = Vec::new();
        let mut clock = std::time::Instant::now();
        let mut lap = |what: &str| {
            times.push(format!("{what} {:?}", clock.elapsed()));
            clock = std::time::Instant::now();
        };
        made(&mut kernel, Step::PutTable(sample(10_000))).await;
        lap("made");
        assert!(seen(&mut kernel).await == table_seen(sample(10_000)));
        lap("read");
        let fewer = Step::PutMembers("peers".to_owned(), hosts(9_999));
        made(&mut kernel, fewer).await;
        lap("one host less");
        let fewer = Step::PutMembers("origins".to_owned(), origins(9_999));
        made(&mut kernel, fewer).await;
        lap("one origin less");
        assert!(seen(&mut kernel).await == table_seen(sample(9_999)));
        made(&mut kernel, Step::PutTable(sample(10_000))).await;
        lap("read and replaced");
        assert!(seen(&mut kernel).await == table_seen(sample(10_000)));
        println!("{}", times.join(", "));
    });
}
