"""The golden files of the dialect `channels_nats` are what that package does today."""

import json

from nats_vectors import FILE, vectors


def test_the_files_are_what_the_package_publishes():
    assert json.loads(FILE.read_text()) == vectors()
