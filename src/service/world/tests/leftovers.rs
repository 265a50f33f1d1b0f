use std::path::PathBuf;

use super::*;

const ELSEWHERE: &str = "[paths]\nsubnet-env = \"/run/other/subnet.env\"\n";

fn obsolete(world: &mut World) -> Vec<String> {
    let plan = world.plan().unwrap();
    assert!(
        plan.files
            .keys()
            .all(|path| !plan.obsolete.contains_key(path))
    );
    let own = subnet("100.96.1.0-24");
    assert!(plan.obsolete.values().all(|about| *about == own));
    let shown = |path: &PathBuf| path.display().to_string();
    plan.obsolete.keys().map(shown).collect()
}

fn passed(world: &mut World) {
    let plan = world.plan().unwrap();
    world.removed(&plan.obsolete);
}

#[test]
fn a_file_that_goes_elsewhere_leaves_none_behind() {
    let mut world = holding();
    world.reconfigure(config(""));
    assert_eq!(obsolete(&mut world), [""; 0]);
    world.reconfigure(config(ELSEWHERE));
    assert_eq!(obsolete(&mut world), ["/run/flannel/subnet.env"]);
    // back before anything was done
    world.reconfigure(config(""));
    assert_eq!(obsolete(&mut world), ["/run/other/subnet.env"]);
    passed(&mut world);
    assert_eq!(obsolete(&mut world), [""; 0]);
}

#[test]
fn a_withdrawal_removes_files_of_before_too() {
    let mut world = holding();
    world.reconfigure(config(ELSEWHERE));
    world.withdraw().unwrap();
    let files = [
        "/run/flannel/docker.env",
        "/run/flannel/subnet.env",
        "/run/other/subnet.env",
    ];
    assert_eq!(obsolete(&mut world), files);
}

#[test]
fn what_comes_in_the_place_of_files_that_were_removed_is_not_ours() {
    let mut world = holding();
    let before = world.plan().unwrap();
    world.withdraw().unwrap();
    // a pass that was under way
    world.removed(&before.obsolete);
    assert_eq!(obsolete(&mut world).len(), 2);
    passed(&mut world);
    assert_eq!(obsolete(&mut world), [""; 0]);
    world.reconfigure(config(ELSEWHERE));
    assert_eq!(obsolete(&mut world), [""; 0]);
}
