CONFIG = "/etc/flannel-rs/config.toml"

start_cluster()
for node in nodes:
    add_container(node)
stream = Stream(node1, "100.96.2.2")
process = node1.get_unit_property(SERVICE, "MainPID")

with subtest("a change is applied"):
    node1.succeed(
        f"""
        printf '[paths]\\ndocker-env = "/run/flannel/other.env"\\n' >>{CONFIG}
        systemctl reload {SERVICE}
        """
    )
    node1.wait_for_file("/run/flannel/other.env", 10)

with subtest("a wrong config is refused, and the old one stays"):
    node1.succeed(f"echo 'nonsense = 1' >>{CONFIG}")
    node1.fail(f"systemctl reload {SERVICE}")
    node1.require_unit_state(SERVICE)
    node1.succeed(f"sed -i '$d' {CONFIG}", f"systemctl reload {SERVICE}")

assert node1.get_unit_property(SERVICE, "MainPID") == process
assert stream.lost() == 0
