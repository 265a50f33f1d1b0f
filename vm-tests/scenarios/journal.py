import json

READY = "1a53821458444e6eae4bd2b7fd6cedcc"
LEASE_ACQUIRED = "c47534805c304ae980d944bfd5e2dfdb"
DRIFT_REPAIRED = "2e7f1701e9ae45b18db859567c8b3373"
DATASTORE_LOST = "bc0be4b518ee4110bfc7e387efef6950"
DATASTORE_BACK = "bd40bd12d0364c1d8c3a74f0e759c5cb"

start_cluster()


def entries(node, event):
    """The journal's entries of an event, each a dictionary of its fields."""
    words = f"journalctl --boot --output=json -u {SERVICE} MESSAGE_ID={event}"
    return [json.loads(line) for line in node.succeed(words).splitlines()]


def wait_for(node, event):
    """The latest entry of an event that is about to come."""
    command = f"journalctl --boot --output=cat -u {SERVICE} MESSAGE_ID={event} | grep -q ."
    node.wait_until_succeeds(command, 60)
    return entries(node, event)[-1]


with subtest("what was leased"):
    for number, node in enumerate(nodes, 1):
        acquired = entries(node, LEASE_ACQUIRED)
        assert [entry["SUBNET"] for entry in acquired] == [f"100.96.{number}.0/24"], acquired
        ready = entries(node, READY)[-1]
        assert ready["BACKEND"] == "vxlan", ready

with subtest("what was put right"):
    node1.succeed("ip route delete 100.96.2.0/24")
    wait_for(node1, DRIFT_REPAIRED)

with subtest("a datastore that is away is told of once"):
    node1.succeed("systemctl stop etcd.service")
    lost = wait_for(node2, DATASTORE_LOST)
    assert lost["FAULT"] == "datastore" and int(lost["PRIORITY"]) <= 4, lost
    node2.sleep(10)
    assert len(entries(node2, DATASTORE_LOST)) == 1
    node1.succeed("systemctl start etcd.service")
    wait_for(node2, DATASTORE_BACK)

with subtest("nothing of it is worse than a warning"):
    for node in nodes:
        assert not node.succeed(f"journalctl --boot -q -u {SERVICE} -p err --output=cat"), node.name
