# SPDX-License-Identifier: Apache-2.0
"""weft-bench compare with commands whose figures are known: ratios, intervals, who is better,
turns, and what it says of commands that fail. Usage: test_compare.py WEFT_BENCH"""
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

BENCH = None


def compare(*args):
    done = subprocess.run([BENCH, "compare", *args], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def figures(*args):
    code, out, err = compare("--json", *args)
    assert code == 0, err
    return {f["name"]: f for f in json.loads(out)["figures"]}


class Compare(unittest.TestCase):
    def test_ratio_and_who_is_better(self):
        got = figures("--a", "a=echo '{\"x\": {\"y\": [1, 6]}}'", "--b", "b=echo '{\"z\": 2}'",
                      "--figure", "more=x/y/1,z", "--less", "less=x/y/1,z", "--rounds", "6")
        self.assertEqual(got["more"]["ratio"], 3)
        self.assertEqual(got["more"]["interval95"], [3, 3])
        self.assertEqual(got["more"]["outcome"], "A is better")
        self.assertEqual(got["less"]["outcome"], "B is better")
        self.assertEqual(len(got["more"]["all_b"]), 6)

    def test_noise_shows_no_difference(self):
        with tempfile.TemporaryDirectory() as folder:
            step = f"cd {folder}; echo x >>n; n=$(wc -l <n); echo \"{{\\\"v\\\": $((n % 5 + 1))}}\""
            got = figures("--a", f"a={step}", "--b", f"b={step}", "--figure", "v=v", "--rounds",
                          "20")
        self.assertEqual(got["v"]["outcome"], "no difference shown")

    def test_sides_take_turns(self):
        with tempfile.TemporaryDirectory() as folder:
            def note(name):
                return f"{name}=cd {folder}; printf {name} >>turns; echo '{{\"v\": 1}}'"
            figures("--a", note("a"), "--b", note("b"), "--figure", "v=v", "--rounds", "4")
            self.assertEqual(Path(folder, "turns").read_text(encoding="ascii"), "abbaabba")

    def test_one_command_for_both(self):
        got = figures("--both", "weft,peer=echo '{\"w\": 1, \"p\": 4}'", "--figure", "v=w,p",
                      "--rounds", "6")
        self.assertEqual(got["v"]["ratio"], 0.25)
        self.assertEqual(got["v"]["outcome"], "B is better")
        got = figures("--both", "weft,peer=echo '{\"w\": 1, \"p\": 4}'", "--figure", "v=w,p",
                      "--rounds", "5")
        self.assertEqual(got["v"]["outcome"], "too few pairs to say")

    def test_what_cannot_be_measured(self):
        good = "a=echo '{\"v\": 1}'"
        for command in ("b=echo no json", "b=false", "b=echo '{\"v\": \"text\"}'", "b=echo '[1]'"):
            code, out, err = compare("--a", good, "--b", command, "--figure", "v=v")
            self.assertEqual((code, out), (1, ""), command)
            self.assertIn("b ", err)
        for args in ([], ["--a", good], ["--a", "=x", "--b", good, "--figure", "v=v"],
                     ["--a", good, "--b", good], ["--a", good, "--b", good, "--rounds", "0"]):
            self.assertEqual(compare(*args)[0], 2, args)


if __name__ == "__main__":
    BENCH = sys.argv.pop(1)
    unittest.main()
