"""A lab of Debian machines that boots real systemd, driven as the NixOS test driver drives its.

`images` makes what machines boot from, `network` wires them, `nspawn` and `qemu` are the two kinds
of `machine`, `seed` is what each finds on its disk, and `driver` runs a scenario against them.
`host` is the ground they all stand on.
"""
