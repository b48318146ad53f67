"""Bugs in what reads replicas in place: connections, branches, differences."""

from __future__ import annotations

from support.mutant import Mutant

__all__ = ["READING_MUTANTS"]

MAP = "tests/unit/reading/test_page_map.py::"
VIEW = "tests/unit/reading/test_view.py::"
CONNECT = "tests/integration/reading/test_connect.py::"
BRANCH = "tests/integration/reading/test_branch.py::"
DIFF = "tests/integration/reading/test_diff.py::"

READING_MUTANTS = (
    Mutant(
        "pages of before a shrink come back when the database grows again",
        "reading/pagemap.py",
        "        owners = self._owners[:commit]\n",
        "        owners = self._owners[:]\n",
        MAP + "test_pages_of_before_a_shrink_never_come_back",
    ),
    Mutant(
        "the state moves on within a transaction",
        "reading/view.py",
        "        self._in_transaction = True\n",
        "        self._in_transaction = False\n",
        VIEW + "test_transaction_keeps_its_state_and_the_next_has_the_newest",
    ),
    Mutant(
        "a transaction goes on with pages of another history",
        "reading/view.py",
        "        if not self.map.is_same_state(found):\n",
        "        if False:\n",
        VIEW + "test_other_history_is_not_mixed_into_a_transaction",
    ),
    Mutant(
        "SQLite is not told that the state moved",
        "reading/file.py",
        "    counter = (moves + 1 & 0xFFFFFFFF)",
        "    counter = (1 & 0xFFFFFFFF)",
        CONNECT + "test_change_that_leaves_the_size_is_seen",
    ),
    Mutant(
        "the schema of another history is taken for the one in memory",
        "reading/file.py",
        "_COOKIE_STEP = 1 << 16",
        "_COOKIE_STEP = 0",
        CONNECT + "test_two_schemas_with_one_cookie_are_told_apart",
    ),
    Mutant(
        "a page is not compared with its checksum",
        "reading/pages.py",
        "    if actual != expected:",
        "    if False:",
        VIEW + "test_page_checksums_prove_the_pages_of_an_image",
    ),
    Mutant(
        "an older state passes for the newest when that is damaged",
        "reading/planner.py",
        "            if damaged is not None and found_end < end:\n                raise damaged\n",
        "",
        VIEW + "test_damaged_newest_file_is_an_error",
    ),
    Mutant(
        "another history under the same names is read on",
        "reading/planner.py",
        "            self._parts.clear()\n",
        "            return current\n",
        VIEW + "test_other_history_is_planned_anew",
    ),
    Mutant(
        "what was cut off a branch comes back from the replica",
        "reading/branchfile.py",
        "            self._map.set_from(-(-size // self._map.page_size) + 1)\n",
        "            pass\n",
        BRANCH + "test_what_was_cut_off_is_gone",
    ),
    Mutant(
        "a page that was written to a branch is only marked when it is synced",
        "reading/branchfile.py",
        "        for pgno in range(first, last + 1):\n            self._map.set(pgno)\n",
        "",
        BRANCH + "test_killed_process_leaves_a_whole_branch",
    ),
    Mutant(
        "branch: what was written while a page was fetched is overwritten by it",
        "reading/branchfile.py",
        "                if not self._map.has(pgno):\n",
        "                if True:\n",
        "tests/integration/reading/test_branch_finish.py"
        "::test_pages_that_are_written_while_they_are_fetched_stay",
    ),
    Mutant(
        "a change behind an unchanged leaf is overlooked",
        "reading/comparing.py",
        "        return not left\n",
        "        return True\n",
        DIFF + "test_large_value_that_changed_behind_its_leaf_is_found",
    ),
)
