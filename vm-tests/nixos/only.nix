# Scenarios that Debian's lab cannot host; `why` says the reason.
{ pkgs, scenarios }:
let
  inherit (pkgs) lib;
  inherit (scenarios) start;

  # What all three nodes are, by how their interfaces and their firewall are made.
  matrix =
    lib.concatMapAttrs
      (
        network: networkd:
        lib.mapAttrs'
          (
            firewall: nftables:
            lib.nameValuePair "matrix-${network}-${firewall}" (
              scenarios.all-backends
              // {
                shows = "all three backends with ${network} networking and the ${firewall} firewall";
                why = "it is about what NixOS makes of a host";
                inherit networkd;
                node.networking = {
                  nftables.enable = nftables;
                  firewall.filterForward = nftables;
                };
              }
            )
          )
          {
            iptables = false;
            nftables = true;
          }
      )
      {
        scripted = false;
        networkd = true;
      };

  certificates = pkgs.runCommand "etcd-certificates" { nativeBuildInputs = [ pkgs.openssl ]; } ''
    mkdir $out && cd $out
    openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=authority -keyout ca-key.pem -out ca.pem
    for who in etcd client; do
        openssl req -newkey rsa:2048 -nodes -subj /CN=$who -keyout $who-key.pem -out $who.csr
        openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 3650 -out $who.pem \
            -extfile <(echo subjectAltName=IP:192.168.1.47,IP:127.0.0.1)
    done
  '';
in
matrix
// {
  etcd-tls = start // {
    shows = "an etcd that asks for a client certificate, which comes as systemd's credential";
    why = "the module writes the credentials of the unit";
    node =
      { lib, config, ... }:
      {
        environment.etc.tls.source = certificates;
        services.etcd = lib.mkIf config.services.etcd.enable {
          listenClientUrls = lib.mkForce [
            "https://192.168.1.47:2379"
            "https://127.0.0.1:2379"
          ];
          advertiseClientUrls = lib.mkForce [ "https://192.168.1.47:2379" ];
          clientCertAuth = true;
          trustedCaFile = "/etc/tls/ca.pem";
          certFile = "/etc/tls/etcd.pem";
          keyFile = "/etc/tls/etcd-key.pem";
        };
        services.flannel-rs = {
          settings.datastore.endpoints = [ "https://192.168.1.47:2379" ];
          credentials = {
            caFile = "/etc/tls/ca.pem";
            certFile = "/etc/tls/client.pem";
            keyFile = "/etc/tls/client-key.pem";
          };
        };
      };
  };

  mixed = start // {
    shows = "a cluster with flanneld on one node, as services.flannel of nixpkgs runs it";
    why = "Debian has no package of flanneld";
    script = ./mixed.py;
    node =
      { config, lib, ... }:
      lib.mkIf (config.networking.hostName == "node3") {
        services.flannel-rs.enable = false;
        environment.etc."flannel-rs/config.toml".enable = false;
        services.flannel = {
          enable = true;
          iface = "eth1";
          network = "100.96.0.0/16";
          etcd.endpoints = [ "http://192.168.1.47:2379" ];
          backend.Type = "vxlan";
        };
        boot.kernel.sysctl."net.ipv4.conf.all.forwarding" = true;
      };
  };
}
