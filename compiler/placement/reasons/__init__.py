"""Why a placement is as it is, or why there is none."""
