"""The linear regressions of the NIST Statistical Reference Datasets that test least squares hardest, in exact fractions.

    python tests/references/strd.py

Writes data/strd_NAME.csv and strd.json. The data are those that NIST publishes (Longley 1967; Norris, NIST; NoInt1 and
NoInt2, Eberhardt, NIST; Wampler 1970); coefficients, standard errors and residual standard deviations are computed here in
rational arithmetic from the doubles that a program reads, and have to agree with the certified values as far as those are
printed, where `CERTIFIED` has them.
"""

from __future__ import annotations

import csv
import json
import math
from decimal import Decimal, getcontext
from fractions import Fraction
from pathlib import Path

getcontext().prec = 40
HERE = Path(__file__).resolve().parent
# Certified values have fifteen digits; of decimal data the doubles differ in the sixteenth, which the worst of these
# problems makes four or five digits of.
AGREES = 1e-10

LONGLEY = """
60323 83.0 234289 2356 1590 107608 1947
61122 88.5 259426 2325 1456 108632 1948
60171 88.2 258054 3682 1616 109773 1949
61187 89.5 284599 3351 1650 110929 1950
63221 96.2 328975 2099 3099 112075 1951
63639 98.1 346999 1932 3594 113270 1952
64989 99.0 365385 1870 3547 115094 1953
63761 100.0 363112 3578 3350 116219 1954
66019 101.2 397469 2904 3048 117388 1955
67857 104.6 419180 2822 2857 118734 1956
68169 108.4 442769 2936 2798 120445 1957
66513 110.8 444546 4681 2637 121950 1958
68655 112.6 482704 3813 2552 123366 1959
69564 114.2 502601 3931 2514 125368 1960
69331 115.7 518173 4806 2572 127852 1961
70551 116.9 554894 4007 2827 130081 1962
"""
NORRIS = """
0.1 0.2 338.8 337.4 118.1 118.2 888.0 884.6 9.2 10.1 228.1 226.5 668.5 666.3 998.5 996.3 449.1 448.6 778.9 777.0
559.2 558.2 0.3 0.4 0.1 0.6 778.1 775.5 668.8 666.9 339.3 338.0 448.9 447.5 10.8 11.6 557.7 556.0 228.3 228.1
998.0 995.8 888.8 887.6 119.6 120.2 0.3 0.3 0.6 0.3 557.6 556.8 339.3 339.1 888.0 887.2 998.5 999.0 778.9 779.0
10.2 11.1 117.6 118.3 228.9 229.2 668.4 669.1 449.2 448.9 0.2 0.5
"""
NOISE = [759, -2048, 2048, -2048, 2523, -2048, 2048, -2048, 1838, -2048, 2048]
NOISE += NOISE[-2::-1]
QUINTIC = "y ~ x + I(x**2) + I(x**3) + I(x**4) + I(x**5)"

# coefficients, their standard deviations, residual standard deviation
CERTIFIED: dict[str, tuple[list[float], list[float], float]] = {
    "longley": (
        [
            -3482258.63459582, 15.0618722713733, -0.358191792925910e-01, -2.02022980381683, -1.03322686717359,
            -0.511041056535807e-01, 1829.15146461355,
        ],
        [
            890420.383607373, 84.9149257747669, 0.334910077722432e-01, 0.488399681651699, 0.214274163161675,
            0.226073200069370, 455.478499142212,
        ],
        304.854073561965,
    ),
    "norris": (
        [-0.262323073774029, 1.00211681802045], [0.232818234301152, 0.429796848199937e-03], 0.884796396144373
    ),
    "noint1": ([2.07438016528926], [0.165289256198347e-01], 3.56753034006338),
    "noint2": ([0.727272727272727], [0.420827318078432e-01], 0.369274472937998),
    "wampler1": ([1.0] * 6, [0.0] * 6, 0.0),
    "wampler2": ([1.0, 0.1, 0.01, 0.001, 0.0001, 0.00001], [0.0] * 6, 0.0),
    "wampler3": (
        [1.0] * 6,
        [
            2152.32624678170, 2363.55173469681, 779.343524331583, 101.475507550350, 5.64566512170752, 0.112324854679312
        ],
        2360.14502379268,
    ),
    "wampler4": (
        [1.0] * 6,
        [215232.624678170, 236355.173469681, 77934.3524331583, 10147.5507550350, 564.566512170752, 11.2324854679312],
        236014.502379268,
    ),
    "wampler5": (
        [1.0] * 6,
        [21523262.4678170, 23635517.3469681, 7793435.24331583, 1014755.07550350, 56456.6512170752, 1123.24854679312],
        23601450.2379268,
    ),
}  # fmt: skip


def tables() -> dict[str, tuple[dict[str, list[str]], str]]:
    """Columns of text and a formula for each."""
    rows = [line.split() for line in LONGLEY.strip().splitlines()]
    names = ["y", "x1", "x2", "x3", "x4", "x5", "x6"]
    found = {
        "longley": (dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)), "y ~ " + " + ".join(names[1:]))
    }
    pairs = NORRIS.split()
    found["norris"] = ({"y": pairs[::2], "x": pairs[1::2]}, "y ~ x")
    found["noint1"] = ({"y": [str(v) for v in range(130, 141)], "x": [str(v) for v in range(60, 71)]}, "y ~ 0 + x")
    found["noint2"] = ({"y": ["3", "4", "4"], "x": ["4", "5", "6"]}, "y ~ 0 + x")
    x = list(range(21))
    whole = [sum(v**k for k in range(6)) for v in x]
    tenths = [Decimal(sum(v**k * 10 ** (5 - k) for k in range(6))) / 10**5 for v in x]
    found["wampler1"] = ({"y": [str(v) for v in whole], "x": [str(v) for v in x]}, QUINTIC)
    found["wampler2"] = ({"y": [f"{v:.5f}" for v in tenths], "x": [str(v) for v in x]}, QUINTIC)
    for number, factor in ((3, 1), (4, 100), (5, 10_000)):
        y = [str(a + factor * d) for a, d in zip(whole, NOISE, strict=True)]
        found[f"wampler{number}"] = ({"y": y, "x": [str(v) for v in x]}, QUINTIC)
    return found


def solve(gram: list[list[Fraction]], right: list[list[Fraction]]) -> list[list[Fraction]]:
    """G^-1 B by elimination."""
    p = len(gram)
    rows = [list(a) + list(b) for a, b in zip(gram, right, strict=True)]
    for j in range(p):
        rows[j] = [v / rows[j][j] for v in rows[j]]
        for i in range(p):
            if i != j:
                rows[i] = [a - rows[i][j] * b for a, b in zip(rows[i], rows[j], strict=True)]
    return [row[p:] for row in rows]


def root(value: Fraction) -> float:
    """Its square root, rounded once."""
    return float((Decimal(value.numerator) / Decimal(value.denominator)).sqrt())


def case(name: str, table: dict[str, list[str]], formula: str) -> dict[str, object]:
    """The least squares fit, exact but for one rounding of each number."""
    data = {key: [Fraction(float(v)) for v in values] for key, values in table.items()}
    y, n = data["y"], len(data["y"])
    columns = []
    for term in formula.split("~")[1].split(" + "):
        base, _, power = term.strip().removeprefix("I(").removesuffix(")").partition("**")
        columns.append([Fraction(1)] * n if base == "0" else [v ** int(power or 1) for v in data[base]])
    names = [term.strip() for term in formula.split("~")[1].split(" + ")]
    if names[0] == "0":
        names, columns = names[1:], columns[1:]
    else:
        names, columns = ["Intercept", *names], [[Fraction(1)] * n, *columns]
    p = len(columns)
    gram = [[sum(a * b for a, b in zip(u, v, strict=True)) for v in columns] for u in columns]
    right = [[sum(a * b for a, b in zip(u, y, strict=True))] for u in columns]
    beta = [row[0] for row in solve(gram, right)]
    inverse = solve(gram, [[Fraction(int(i == j)) for j in range(p)] for i in range(p)])
    left = [v - sum(b * c[i] for b, c in zip(beta, columns, strict=True)) for i, v in enumerate(y)]
    phi = sum(r * r for r in left) / (n - p)
    result = {
        "name": name, "data": f"strd_{name}.csv", "formula": formula, "names": names,
        "coefficients": [float(b) for b in beta], "standard_errors": [root(phi * inverse[j][j]) for j in range(p)],
        "residual_sd": root(phi), "certified": CERTIFIED[name][0], "certified_errors": CERTIFIED[name][1],
    }  # fmt: skip
    found = [*result["coefficients"], *result["standard_errors"], result["residual_sd"]]
    for value, certified in zip(found, [*CERTIFIED[name][0], *CERTIFIED[name][1], CERTIFIED[name][2]], strict=True):
        # of exact fits the certified errors are 0, and what is left are the roundings of the decimals
        assert math.isclose(value, certified, rel_tol=AGREES, abs_tol=1e-8), (name, value, certified)
    return result


def main() -> None:
    cases = []
    for name, (table, formula) in tables().items():
        with open(HERE / "data" / f"strd_{name}.csv", "w", newline="\n") as out:
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow(table)
            writer.writerows(zip(*table.values(), strict=True))
        cases.append(case(name, table, formula))
    text = json.dumps({"settings": "exact fractions, rounded once", "cases": cases}, indent=1, allow_nan=False)
    (HERE / "strd.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
