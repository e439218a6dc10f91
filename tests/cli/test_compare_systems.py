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
