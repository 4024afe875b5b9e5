"""Reads the Autobahn test suite's report of one server and says what failed.

    report.py index.json

Exits 0 when every case behaved and every connection was closed cleanly.
"""

import json
import sys
from collections import Counter

# Allowed by RFC 6455, or not decided by it; all else is a fault of the server.
FINE = {"OK", "NON-STRICT", "INFORMATIONAL"}
# Cases of these groups are for servers that offer compression.
COMPRESSION = ("12.", "13.")


def main(path):
    with open(path, encoding="utf-8") as file:
        report = json.load(file)
    assert len(report) == 1, f"one server was tested, the report has {sorted(report)}"
    (cases,) = report.values()
    for aspect in ("behavior", "behaviorClose"):
        counts = Counter(case[aspect] for case in cases.values())
        print(f"{aspect}: " + ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())))
    failed = unoffered = 0
    for name in sorted(cases, key=lambda name: [int(part) for part in name.split(".")]):
        verdicts = (cases[name]["behavior"], cases[name]["behaviorClose"])
        if is_unoffered(name, *verdicts):
            unoffered += 1
            continue
        good = FINE.issuperset(verdicts)
        failed += not good
        if verdicts != ("OK", "OK"):
            print(f"{'    ' if good else 'FAIL'}  {name}: {verdicts[0]}, close {verdicts[1]}")
    if unoffered:
        print(f"      {unoffered} cases of 12 and 13 want a compression that the server did not agree to")
    tried = len(cases) - unoffered
    print(f"autobahn: {tried - failed} passed, {failed} failed")
    return failed == 0 and tried > 0


def is_unoffered(name, behavior, close):
    return name.startswith(COMPRESSION) and behavior == "UNIMPLEMENTED" and close in FINE | {"UNIMPLEMENTED"}


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1]) else 1)
