start_cluster()
ping = node1.succeed("type -P ping").strip()
node1.succeed(
    f"""
    cat >/run/systemd/system/dependent.service <<END
    [Unit]
    Requires={SERVICE}
    After={SERVICE}
    [Service]
    Type=oneshot
    RemainAfterExit=yes
    ExecStart={ping} -c 1 -w 2 -I 100.96.1.1 100.96.2.1
END
    systemctl daemon-reload
    """
)


def forget_everything():
    """Leaves the node as it is after a boot: without any data path."""
    node1.succeed(f"systemctl stop dependent.service {SERVICE}", "ip link delete flannel.1")
    node1.fail("ping -c 1 -w 1 -I 100.96.1.1 100.96.2.1")


with subtest("who starts after the service finds that traffic flows"):
    forget_everything()
    node1.succeed("systemctl start dependent.service")
    node1.require_unit_state(SERVICE)

with subtest("as long as there is no lease, the dependent waits"):
    forget_everything()
    node1.succeed("systemctl stop etcd.service")
    node1.succeed("systemctl start --no-block dependent.service")
    wait_for_status(node1, "waiting; datastore:")
    node1.require_unit_state(SERVICE, "activating")
    node1.require_unit_state("dependent.service", "inactive")
    node1.succeed("systemctl start etcd.service")
    node1.wait_for_unit("dependent.service")
