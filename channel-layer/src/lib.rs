//! Who is in which group; delivery, order, loss.
