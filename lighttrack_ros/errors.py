"""The one error that is meant for the user's eyes."""


class LightTrackError(Exception):
    """Something the user can put right.

    The message names the thing, the value and the way out, e.g.
    ``engines/x/model.yaml: search_size is 250, expected a multiple of 16 (try 256)``.
    The command line prints it without a traceback; the node logs it and goes on.
    """
