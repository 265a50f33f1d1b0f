# For work on the project: what `make test`, `make demo` and `make lint` call.
{
  mkShell,
  flannel-rs,
  cargo-deny,
  clippy,
  deadnix,
  dbus,
  etcd,
  ethtool,
  iperf3,
  iproute2,
  iputils,
  nixfmt,
  python3,
  rustfmt,
  tcpdump,
  wireshark-cli,
}:
mkShell {
  inputsFrom = [ flannel-rs ];
  packages = [
    cargo-deny
    clippy
    deadnix
    dbus
    etcd
    ethtool
    iperf3
    iproute2
    iputils
    nixfmt
    python3
    rustfmt
    tcpdump
    wireshark-cli
  ];
}
