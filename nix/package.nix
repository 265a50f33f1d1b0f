{
  lib,
  stdenv,
  rustPlatform,
  protobuf,
  runtimeShell,
  systemd,
  # of the tests
  dbus,
  iproute2,
}:
let
  manifest = (lib.importTOML ../Cargo.toml).package;
in
rustPlatform.buildRustPackage {
  pname = manifest.name;
  inherit (manifest) version;

  # what build, tests and `make install` read
  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../Cargo.lock
      ../Cargo.toml
      ../CHANGELOG.md
      ../LICENSE
      ../Makefile
      ../README.md
      ../benches
      ../clippy.toml
      ../docs
      ../examples
      ../fuzz/corpus
      ../fuzz/src
      ../packaging
      ../src
      ../systemd
      ../tests
    ];
  };

  cargoLock.lockFile = ../Cargo.lock;

  # the etcd client is generated from etcd's own .proto files
  nativeBuildInputs = [ protobuf ];

  # A test that takes root, or a program that is not here, says so and is passed over.
  nativeCheckInputs = [
    dbus
    iproute2
  ];

  postPatch = ''
    patchShebangs examples packaging
    substituteInPlace Makefile --replace-fail /bin/bash ${stdenv.shell}
    substituteInPlace systemd/system/flannel-rs.service --replace-fail /bin/sh ${runtimeShell}
  '';

  # Everything is laid out by the one that lays it out everywhere.
  postInstall = ''
    mv $out/bin/flannel-rs flannel-rs
    make install BINARY=./flannel-rs PREFIX=$out SYSCONFDIR=$out/etc \
      SYSTEMD_VERSION=${lib.versions.major systemd.version}
  '';

  meta = {
    inherit (manifest) description;
    longDescription = ''
      flannel-rs gives each machine a container subnet, leased in etcd or declared in its config, and
      makes the subnets reach each other over host-gw, vxlan or udp. It is a drop-in member of a
      running flannel cluster.
    '';
    license = lib.licenses.asl20;
    mainProgram = "flannel-rs";
    platforms = lib.platforms.linux;
    maintainers = [ ];
  };
}
