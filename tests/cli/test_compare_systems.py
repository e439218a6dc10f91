"""The command ``compare-systems``."""

from pathlib import Path

SMALL = ("--space", "tiny", "--targets", "1", "--systems", "milp,random", "--budget", "40")


def test_it_makes_the_table_and_goes_on(call, refused):
    outcome = call("compare-systems", *SMALL, "--seeds", "1", "--out", "c")
    assert outcome.code == 0
    text = Path("c/comparison.md").read_text()
    assert "| milp |" in text
    assert "| random |" in text
    assert "## latency <= " in outcome.out
    before = Path("c/comparison.csv").read_bytes()
    again = call("compare-systems", "--resume", "c")
    assert again.code == 0
    assert Path("c/comparison.csv").read_bytes() == before
    assert "--resume c" in refused("compare-systems", *SMALL, "--out", "c")
    assert "leave out what else it is of" in refused("compare-systems", "--resume", "c", *SMALL[:2])
    assert call("report", "c", "-o", "c.html").code == 0
    assert "<h1>2 systems on tiny</h1>" in Path("c.html").read_text()
    assert "leave out --markdown" in refused("report", "c", "-o", "d.html", "--markdown", "d.md")
    assert not Path("d.html").exists()


def test_what_it_cannot_do_is_one_line(refused):
    assert "--max" in refused("compare-systems", *SMALL, "--max", "latency=0.1")
    for epochs in ("0", "1,2", "some"):
        assert "--finish" in refused("compare-systems", *SMALL, "--finish", epochs)
    assert "unknown algorithm 'x'" in refused(
        "compare-systems", *SMALL[:4], "--systems", "x", "--budget", "40"
    )
    line = refused(
        "compare-systems", "--space", "tiny", "--systems", "uniform-bits", "--max", "latency=0.1"
    )
    assert "that uniform-bits can choose has latency <= 0.1 ms; the smallest reachable" in line
    assert not Path("runs").exists()


def test_it_stops_after_a_while_and_goes_on_with_the_same_result(call, refused, monkeypatch):
    """Half of the searches end in time; then the rest, and all is as if nothing had stopped."""
    assert call("compare-systems", *SMALL, "--seeds", "2", "--out", "whole").code == 0
    clock = [0.0]
    monkeypatch.setattr("apq_moo.deadlines.time.time", lambda: clock[0])
    from apq_moo.benchmarks.compare import cells

    search = cells._search

    def timed(cell, deadline):
        clock[0] += 10
        return search(cell, deadline)

    monkeypatch.setattr(cells, "_search", timed)
    begun = call("compare-systems", *SMALL, "--seeds", "2", "--out", "c", "--stop-after", "30")
    assert begun.code == 0
    assert "2 searches, " in begun.out
    assert "stopped after 30 s: what ended is kept: go on with" in begun.out
    assert Path("c/comparison.md").exists()
    assert call("compare-systems", "--resume", "c", "--stop-after", "1000").code == 0
    for name in ("networks.csv", "tests.csv", "curves.csv"):
        assert Path("c", name).read_bytes() == Path("whole", name).read_bytes()
    for seconds in ("0", "-1", "nan"):
        assert "--stop-after" in refused("compare-systems", *SMALL, "--stop-after", seconds)


def test_a_search_is_left_while_it_goes_on(call, monkeypatch):
    """Nothing of it is kept, and nothing said of it but that it is left."""
    ticks = iter(range(10**6))
    monkeypatch.setattr("apq_moo.deadlines.time.time", lambda: float(next(ticks)))
    begun = call("compare-systems", *SMALL, "--seeds", "1", "--out", "c", "--stop-after", "8")
    assert begun.code == 0
    assert "failed" not in begun.out + begun.err
    assert "1 searches, " in begun.out
