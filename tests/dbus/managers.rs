//! Others who manage the host's network, with stand-ins: what they are told, and what is said of
//! them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use flannel_rs::plan::{Footprint, Tunnel};
use flannel_rs::service::dbus::Bus;
use flannel_rs::service::duty::Pulse;
use flannel_rs::service::managers::{Report, attend_on, desk, withdraw};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::links::network_manager;
use crate::stand_in::{Firewalld, Mood, Rules};
use crate::support::bus::PrivateBus;

const NETWORK: &str = "100.96.0.0/16";

/// The service's part, on a bus.
pub(crate) struct Service {
    wanted: watch::Sender<Footprint>,
    report: watch::Receiver<Report>,
    task: JoinHandle<()>,
}

impl Service {
    pub(crate) fn start(bus: &PrivateBus) -> Self {
        let (wanted, desk, report) = desk();
        let task = tokio::spawn(attend_on(Bus::At(bus.address()), desk, Pulse::default()));
        Self {
            wanted,
            report,
            task,
        }
    }

    pub(crate) fn want(&self, footprint: Footprint) {
        self.wanted.send_replace(footprint);
    }

    /// Waits until this was seen to and all is well.
    pub(crate) async fn is_well(&mut self, footprint: &Footprint) {
        let well = |report: &Report| report.of == *footprint && report.trouble.is_none();
        self.wait(well).await;
    }

    /// Waits for a trouble in whose text is this.
    pub(crate) async fn trouble(&mut self, part: &str) -> String {
        let with = |report: &Report| {
            report
                .trouble
                .as_ref()
                .is_some_and(|text| text.contains(part))
        };
        self.wait(with).await.trouble.unwrap()
    }

    async fn wait(&mut self, until: impl Fn(&Report) -> bool) -> Report {
        let report = self.report.wait_for(until);
        let waited = timeout(LONG, report)
            .await
            .map(|report| report.unwrap().clone());
        match waited {
            Ok(report) => report,
            Err(_) => panic!("it stays {:?}", self.report.borrow()),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A node with vxlan.
pub(crate) fn footprint() -> Footprint {
    Footprint {
        links: ["flannel.1".to_owned()].into(),
        network: Some(NETWORK.parse().unwrap()),
        tunnel: Some(Tunnel {
            uplink: "eth0".to_owned(),
            port: 8472,
        }),
    }
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LONG, "not {what} within {LONG:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

fn port(zone: &str, port: &str) -> (String, String) {
    (zone.to_owned(), port.to_owned())
}

/// Whether firewalld lets in all that [`footprint`] asks for, in the zone of the uplink.
fn lets_in(firewalld: &Firewalld, zone: &str) -> bool {
    let rules = firewalld.rules();
    rules.sources.get(NETWORK).map(String::as_str) == Some("trusted")
        && rules.ports.contains(&port(zone, "8472"))
}

#[tokio::test(flavor = "multi_thread")]
async fn firewalld_lets_the_overlay_in_again_and_again() {
    let Some(bus) = PrivateBus::start() else {
        return;
    };
    let firewalld = Firewalld::start(&bus, Rules::default()).await;
    let mut service = Service::start(&bus);
    service.want(footprint());
    service.is_well(&footprint()).await;
    assert!(lets_in(&firewalld, "public"), "{:?}", firewalld.rules());
    assert_eq!(firewalld.rules().changes, 2);

    firewalld.reload().await;
    eventually("as before the reload", || lets_in(&firewalld, "public")).await;

    firewalld.on_bus.go().await;
    *firewalld.rules() = Rules::default();
    firewalld.on_bus.come().await;
    eventually("as before the restart", || lets_in(&firewalld, "public")).await;
    service.is_well(&footprint()).await;
    assert_eq!(firewalld.rules().changes, 2, "it is told once what it has");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_opened_is_closed_and_what_is_in_the_files_stays() {
    let Some(bus) = PrivateBus::start() else {
        return;
    };
    let mut rules = Rules::default();
    rules.ports.insert(port("public", "8285"));
    rules.permanent.insert(port("public", "8285"));
    let firewalld = Firewalld::start(&bus, rules).await;
    let mut service = Service::start(&bus);
    service.want(footprint());
    service.is_well(&footprint()).await;

    // another network, and the port that the administrator has opened
    let mut other = footprint();
    other.network = Some("10.5.0.0/16".parse().unwrap());
    other.tunnel.as_mut().unwrap().port = 8285;
    service.want(other.clone());
    service.is_well(&other).await;
    {
        let rules = firewalld.rules();
        let sources: Vec<_> = rules.sources.keys().collect();
        assert_eq!(sources, ["10.5.0.0/16"]);
        assert_eq!(rules.ports, [port("public", "8285")].into());
    }
    // the uplink is moved to another zone
    let zone = ("eth0".to_owned(), "internal".to_owned());
    firewalld.rules().interfaces.extend([zone]);
    service.want(footprint());
    service.is_well(&footprint()).await;
    assert!(lets_in(&firewalld, "internal"), "{:?}", firewalld.rules());

    service.want(Footprint::default());
    service.is_well(&Footprint::default()).await;
    let rules = firewalld.rules();
    assert!(rules.sources.is_empty(), "{rules:?}");
    assert_eq!(rules.ports, [port("public", "8285")].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_service_that_is_gone_has_opened_can_be_closed() {
    let Some(mut bus) = PrivateBus::start() else {
        return;
    };
    let at = Bus::At(bus.address());
    assert_eq!(withdraw(&at, &footprint()).await, Ok(()));
    let mut rules = Rules::default();
    rules
        .sources
        .insert(NETWORK.to_owned(), "trusted".to_owned());
    rules
        .sources
        .insert("10.5.0.0/16".to_owned(), "trusted".to_owned());
    rules.ports.insert(port("public", "8472"));
    let firewalld = Firewalld::start(&bus, rules).await;
    firewalld.rules().mood = Mood::Refusing;
    let left = withdraw(&at, &footprint()).await.unwrap_err();
    let commands = "firewall-cmd --zone=trusted --remove-source=100.96.0.0/16; firewall-cmd \
                    --zone=public --remove-port=8472/udp";
    assert!(left.ends_with(commands), "{left}");
    firewalld.rules().mood = Mood::Obedient;
    assert_eq!(withdraw(&at, &footprint()).await, Ok(()));
    {
        let rules = firewalld.rules();
        let sources: Vec<_> = rules.sources.keys().collect();
        assert_eq!(sources, ["10.5.0.0/16"]);
        assert!(rules.ports.is_empty(), "{rules:?}");
    }
    bus.kill();
    assert_eq!(withdraw(&at, &footprint()).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_in_another_zone_is_left_there_and_told() {
    let Some(bus) = PrivateBus::start() else {
        return;
    };
    let mut rules = Rules::default();
    rules.sources.insert(NETWORK.to_owned(), "drop".to_owned());
    let firewalld = Firewalld::start(&bus, rules).await;
    let mut service = Service::start(&bus);
    service.want(footprint());
    let told = "firewalld has 100.96.0.0/16 in the zone drop, where it may drop what containers \
                send; run: firewall-cmd --zone=trusted --change-source=100.96.0.0/16";
    assert_eq!(service.trouble("zone drop").await, told);
    assert_eq!(firewalld.rules().sources[NETWORK], "drop");
    // the port was opened all the same
    assert!(firewalld.rules().ports.contains(&port("public", "8472")));
    firewalld.reload().await;
    service.is_well(&footprint()).await;
    assert!(lets_in(&firewalld, "public"), "{:?}", firewalld.rules());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_told_with_what_to_run_until_it_is_granted() {
    let Some(bus) = PrivateBus::start() else {
        return;
    };
    let rules = Rules {
        mood: Mood::Refusing,
        ..Rules::default()
    };
    let firewalld = Firewalld::start(&bus, rules).await;
    let mut service = Service::start(&bus);
    service.want(footprint());
    let told = service.trouble("Not Authorized").await;
    assert_eq!(
        told,
        "firewalld does not let this service open or close anything (Not Authorized(polkit): \
         org.fedoraproject.FirewallD1.config); install \
         /usr/share/polkit-1/rules.d/flannel-rs.rules, or run, and once more with --permanent: \
         firewall-cmd --zone=trusted --add-source=100.96.0.0/16; firewall-cmd --zone=public \
         --add-port=8472/udp"
    );
    assert_eq!(firewalld.rules().changes, 0);
    firewalld.rules().mood = Mood::Obedient;
    firewalld.reload().await;
    service.is_well(&footprint()).await;

    // without polkit it answers root alone
    firewalld.rules().mood = Mood::Closed;
    firewalld.reload().await;
    let told = service.trouble("Not Authorized(uid)").await;
    let commands = "firewall-cmd --zone=trusted --add-source=100.96.0.0/16; firewall-cmd \
                    --add-port=8472/udp";
    assert!(told.ends_with(commands), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_told_and_nothing_of_it_is_believed() {
    let Some(bus) = PrivateBus::start() else {
        return;
    };
    let rules = Rules {
        mood: Mood::Garbage,
        ..Rules::default()
    };
    let firewalld = Firewalld::start(&bus, rules).await;
    let mut service = Service::start(&bus);
    service.want(footprint());
    let told = service.trouble("its answer makes no sense").await;
    assert!(
        told.starts_with("firewalld was not told what to let in"),
        "{told}"
    );

    // a name that would do harm in a command
    let zone = ("eth0".to_owned(), "public; reboot".to_owned());
    *firewalld.rules() = Rules::default();
    firewalld.rules().interfaces.extend([zone]);
    firewalld.reload().await;
    let told = service.trouble("is no name of a zone").await;
    let (_, commands) = told.split_once("run: ").unwrap();
    assert!(!commands.contains("reboot"), "{told}");
    assert_eq!(firewalld.rules().changes, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_answer_holds_up_nobody_for_long() {
    let Some(bus) = PrivateBus::start() else {
        return;
    };
    let rules = Rules {
        mood: Mood::Mute,
        ..Rules::default()
    };
    let firewalld = Firewalld::start(&bus, rules).await;
    let managed = Arc::new(Mutex::new(true));
    let _other = network_manager(&bus, managed).await;
    let mut service = Service::start(&bus);
    service.want(footprint());
    let told = service.trouble("it did not answer within 20s").await;
    assert!(told.contains("NetworkManager manages flannel.1"), "{told}");
    assert!(told.contains("firewall-cmd --state"), "{told}");
    *firewalld.rules() = Rules::default();
    firewalld.reload().await;
    eventually("told at last", || lets_in(&firewalld, "public")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_else_manages_the_network_nothing_is_wrong() {
    let Some(mut bus) = PrivateBus::stopped() else {
        return;
    };
    let mut service = Service::start(&bus);
    service.want(footprint());
    service.is_well(&footprint()).await;
    bus.run();
    let firewalld = Firewalld::start(&bus, Rules::default()).await;
    eventually("told", || lets_in(&firewalld, "public")).await;
    bus.kill();
    bus.run();
    let firewalld = Firewalld::start(&bus, Rules::default()).await;
    eventually("told on the new bus", || lets_in(&firewalld, "public")).await;
    service.is_well(&footprint()).await;
}

/// Far more than it takes, and less than the looks that come by themselves need only in the worst
/// case.
const LONG: Duration = Duration::from_secs(150);
