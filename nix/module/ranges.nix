# IPv4 ranges: just enough to see whether two overlap.
{ lib }:
let
  power = n: lib.foldl' (product: _: product * 2) 1 (lib.range 1 n);

  # null if it is none: to complain about that is the program's business
  parse =
    text:
    let
      part = "([0-9]{1,3})";
      numbers = builtins.match "${part}\\.${part}\\.${part}\\.${part}/([0-9]{1,2})" text;
      digits = map lib.toIntBase10 numbers;
      address = lib.foldl' (sum: digit: sum * 256 + digit) 0 (lib.init digits);
      size = power (32 - lib.last digits);
      first = address - lib.mod address size;
    in
    if numbers == null || lib.last digits > 32 then
      null
    else
      {
        inherit first;
        last = first + size - 1;
      };
in
{
  overlap =
    one: other:
    let
      a = parse one;
      b = parse other;
    in
    a != null && b != null && a.first <= b.last && b.first <= a.last;
}
