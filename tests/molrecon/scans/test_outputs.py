"""Names that no two outputs share, and inputs that no output replaces."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molrecon.scans import outputs
from molrecon.scans.outputs import check_replacement, output_names, output_paths

PART = st.text("aAbB_-1é", min_size=1, max_size=4)
INPUT = st.tuples(st.lists(PART, max_size=3), PART, st.sampled_from(["", ".h5", ".H5", ".npy", "_h5.npy", ".a.h5"]))


@given(st.lists(INPUT, max_size=40))
def test_names_are_unique_whatever_the_inputs(paths: list[tuple[list[str], str, str]]) -> None:
    inputs = list(dict.fromkeys(Path("/", *folders, name + suffix) for folders, name, suffix in paths))
    names = output_names(inputs)
    assert len({name.casefold() for name in names}) == len(names) == len(inputs)
    files = [str(path).casefold() for name in names for path in output_paths("out", name)]
    assert len(set(files)) == len(files)
    assert not any("/" in name for name in names)


def test_a_number_that_is_a_name_already() -> None:
    inputs = [Path(name) for name in ("/a/b.h5", "/A/b.h5", "/A_b_h5-1.h5", "/a_b_h5-2.h5", "/a/B.h5")]
    assert output_names(inputs) == ["a_b_h5-3", "A_b_h5-4", "A_b_h5-1", "a_b_h5-2", "a_B_h5-5"]
    names = output_names([Path("/a_b/c.h5"), Path("/a/b_c.h5"), Path("/b_c.h5"), Path("/a/b/c.h5")])
    assert len({name.casefold() for name in names}) == 4
    # An e with an acute accent, as one character and as two.
    assert len({name[-2:] for name in output_names([Path("/\u00e9.h5"), Path("/e\u0301.h5")])} & {"-1", "-2"}) == 2


def test_a_link_is_called_as_its_user_called_it(tmp_path: Path) -> None:
    (tmp_path / "0123456789abcdef.h5").touch()
    (tmp_path / "patient.h5").symlink_to("0123456789abcdef.h5")
    assert output_names([tmp_path / "patient.h5"]) == ["patient"]
    with pytest.raises(ValueError, match="listed 2 times"):
        output_names([tmp_path / "patient.h5", tmp_path / "0123456789abcdef.h5"])


def test_the_work_grows_with_the_inputs_and_not_with_their_square(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [0]
    folded = outputs._folded

    def counting(name: str) -> str:
        calls[0] += 1
        return folded(name)

    monkeypatch.setattr(outputs, "_folded", counting)
    counts = []
    for n in (500, 2000):
        calls[0] = 0
        assert len(set(output_names([Path(f"/data/patient{k}/scan.h5") for k in range(n)]))) == n
        counts.append(calls[0])
        # The numbers of one base are looked for from where the last one was found.
        calls[0] = 0
        assert len(set(outputs._numbered(["scan"] * n + [f"scan-{k}" for k in range(1, n)]))) == 2 * n - 1
        counts.append(calls[0])
    assert counts[2] < 5 * counts[0] and counts[3] < 5 * counts[1]


def test_an_input_under_another_name(tmp_path: Path) -> None:
    scan = tmp_path / "scan.h5"
    scan.touch()
    (tmp_path / "link.h5").symlink_to(scan)
    os.link(scan, tmp_path / "hard.h5")
    (tmp_path / "folder").symlink_to(tmp_path)
    for name in ("scan.h5", "link.h5", "hard.h5", "folder/scan.h5"):
        with pytest.raises(ValueError, match="would replace an input"):
            check_replacement([tmp_path / "new.h5", tmp_path / name], [scan])
        with pytest.raises(ValueError, match="would replace an input"):
            check_replacement([scan], [tmp_path / "absent.h5", tmp_path / name])
    check_replacement([tmp_path / "new.h5", tmp_path / "folder"], [scan])
    with pytest.raises(ValueError, match="would replace an input"):  # it may come to be before it is read
        check_replacement([tmp_path / "folder" / "absent.h5"], [tmp_path / "absent.h5"])
    with pytest.raises(ValueError, match=r"hard\.h5: would replace an input, which is .*scan\.h5, expected"):
        check_replacement([tmp_path / "hard.h5"], [scan])
