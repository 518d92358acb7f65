"""`make update-checks` repairs what no longer matches and leaves the rest as it was written."""

import subprocess
import sys
from pathlib import Path

OUTPUT = """"builtin.module"() ({
  %0 = "test.one"() : () -> i32
  %1 = "test.two"(%0) {axis = 2 : i64} : (i32) -> i32
}) : () -> ()"""


def updated(root: Path, folder: Path, checks: str) -> tuple[str, int]:
    (folder / "output.txt").write_text(OUTPUT)
    test = root / "tests" / "filecheck" / "update_checks.py"
    path = folder / "filecheck" / "case.mlir"
    path.parent.mkdir()
    (path.parent / "update_checks.py").write_text(test.read_text())
    path.write_text(f"// RUN: cat {folder}/output.txt | filecheck %s\n{checks}")
    done = subprocess.run([sys.executable, str(path.parent / "update_checks.py")], check=False, capture_output=True)
    return path.read_text().partition("\n")[2], done.returncode


def test_a_line_that_matches_stays_as_written(root: Path, tmp_path: Path):
    checks = '// CHECK: %{{[0-9]+}} = "test.one"() : ()\n// CHECK-NEXT:   "test.two"(%{{.*}})\n'
    assert updated(root, tmp_path, checks) == (checks, 0)


def test_a_line_that_no_longer_matches_takes_the_new_text(root: Path, tmp_path: Path):
    checks = '// CHECK: "test.one"()\n// CHECK-NEXT: %1 = "test.two"(%0) {axis = 1 : i64} : (i32) -> i32\n'
    assert updated(root, tmp_path, checks) == (checks.replace("axis = 1", "axis = 2"), 0)


def test_a_line_whose_subject_is_gone_is_reported_and_left(root: Path, tmp_path: Path):
    checks = '// CHECK: "test.one"()\n// CHECK: onnx.Softmax\n'
    assert updated(root, tmp_path, checks) == (checks, 1)
