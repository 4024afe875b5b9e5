"""docs/quickstart.md, from the first command to the last."""

from pages import Walk


def test_the_quick_start_is_true(tmp_path):
    ports = [8000, 8080]
    with Walk("quickstart.md", tmp_path, ports) as walk:
        gateway = f"127.0.0.1:{walk.ports['8000']}"
        # Where the reader's programs find each other without being told.
        walk.env |= {"GROUPCAST_URL": f"http://{gateway}", "GROUPCAST_SERVER__LISTEN": gateway}
        walk.go()
