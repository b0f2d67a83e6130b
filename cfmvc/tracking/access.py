"""What a server that turns somebody away means, in words that say which variable to set."""

_UNKNOWN = {"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}


def denial(error: BaseException) -> str | None:
    """Return why a server has turned us away, and what to do; None if the error is another.

    Parameters
    ----------
    error
        MLflow's own or that of a transfer of files, or what was raised from one. The words never
        have a password in them.
    """
    cause: BaseException | None = error
    while cause is not None:
        code = getattr(cause, "error_code", None)
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if code in _UNKNOWN or status == 401:
            return _who_are_you()
        if code == "PERMISSION_DENIED" or status == 403:
            # the server does not tell what is not there from what somebody may not see
            return (
                f"{_user()} may not do this, or what is asked for is not there: an administrator "
                "of the server can grant EDIT on the experiment and on the registered model "
                "(docs/team.md)"
            )
        cause = cause.__cause__ or cause.__context__
    return None


def _who_are_you() -> str:
    from mlflow.utils.credentials import read_mlflow_creds

    known, variables = read_mlflow_creds(), "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    if not (known.username and known.password):
        return f"the server wants a user and a password: set {variables}"
    return f"the server does not take this password of {_user()}: check {variables}"


def _user() -> str:
    from mlflow.utils.credentials import read_mlflow_creds

    name = read_mlflow_creds().username
    return f"user '{name}'" if name else "this user"
