"""Words by which annotators, and their tools, say of a row that it stands, does not, or waits."""

GOOD = frozenset({
    "accept", "accepted", "approve", "approved", "submitted", "submit", "done", "complete",
    "completed", "finished", "ok", "okay", "good", "correct", "right", "valid", "gold",
    "verified", "reviewed", "reviewed_ok", "keep", "kept", "confirmed", "final",
    "published", "like", "liked", "thumbs_up", "up", "agree", "接受",
    "通过", "已通过", "完成", "已完成", "正确", "有效", "保留",
})  # fmt: skip
BAD = frozenset({
    "reject", "rejected", "ignore", "ignored", "skip", "skipped", "discard", "discarded",
    "cancel", "cancelled", "canceled", "delete", "deleted", "remove", "removed", "drop",
    "dropped", "invalid", "wrong", "incorrect", "bad", "spam", "flagged", "error",
    "dislike", "disliked", "thumbs_down", "down", "disagree", "duplicate", "failed", "fail",
    "exclude", "excluded", "拒绝", "已拒绝", "驳回", "忽略", "跳过",
    "丢弃", "废弃", "删除", "错误", "无效", "不通过",
})  # fmt: skip
OPEN = frozenset({
    "draft", "pending", "todo", "to_do", "in_progress", "inprogress", "review",
    "needs_review", "in_review", "unsure", "maybe", "unknown", "unlabeled", "unlabelled",
    "open_question", "unverified", "unreviewed", "new", "草稿", "待审", "待审核", "待定", "进行中",
    "未完成", "未审核",
})  # fmt: skip
# Of others a column may say something else than the row's worth: tickets are pending too.
PLAIN = frozenset({
    "accept", "reject", "accepted", "rejected", "ignore", "thumbs_down", "dislike", "disliked",
    "discarded", "invalid", "incorrect", "接受", "拒绝",
})  # fmt: skip


def word(value: str) -> str:
    """A value as these words are written."""
    return value.strip().casefold().replace(" ", "_").replace("-", "_")
