"""awslambdaric with nothing to do."""


def handler(_event, _context):
    return {}
