"""Find faces with the pack buffalo_l, and print what was seen as JSON.

The arguments are names of cases; without any, all are loaded.
"""

from __future__ import annotations

from kinds import answer, faces_seen

if __name__ == "__main__":
    answer(
        {
            "no root": lambda: faces_seen(name="buffalo_l"),
            "a root": lambda: faces_seen(name="buffalo_l", root="caches/insightface"),
        }
    )
