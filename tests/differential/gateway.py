"""The REST API in front of functions: routes, authorizers, answers, limits, and what a function's failure shows (nothing)."""

import concurrent.futures
import json
import time
import urllib.parse
import uuid


from probes import SILENT, Absent, guide, probe, send, told

INTEGRATION = guide("Lambda proxy integrations", "apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html", "Input format, output format")
AUTHORIZERS = guide("Lambda authorizers", "apigateway/latest/developerguide/apigateway-use-lambda-authorizer.html", "Workflow, caching")
AUTHORIZER_INPUT = guide("Lambda authorizer input", "apigateway/latest/developerguide/api-gateway-lambda-authorizer-input.html", "REQUEST")
AUTHORIZER_OUTPUT = guide("Lambda authorizer output", "apigateway/latest/developerguide/api-gateway-lambda-authorizer-output.html", "Text")
RESPONSES = guide("Gateway response types", "apigateway/latest/developerguide/supported-gateway-response-types.html", "Table")
LIMITS = guide("API Gateway quotas", "apigateway/latest/developerguide/api-gateway-execution-service-limits-table.html", "Table")
VALIDATION = guide("Request validation", "apigateway/latest/developerguide/api-gateway-method-request-validation.html", "Text")
NOTES = guide("API Gateway important notes", "apigateway/latest/developerguide/api-gateway-known-issues.html", "REST APIs")
VARIABLES = guide("Stage variables", "apigateway/latest/developerguide/stage-variables.html", "Text")
THROTTLING = guide("Throttling", "apigateway/latest/developerguide/api-gateway-request-throttling.html", "Text")
RESOURCES = guide("API resources", "apigateway/latest/developerguide/api-gateway-method-settings-method-request.html", "Proxy resources")
BINARY = guide("Binary media types", "apigateway/latest/developerguide/api-gateway-payload-encodings-workflow.html", "Table")
INVOKE = guide("Lambda Invoke", "lambda/latest/api/API_Invoke.html", "Response, errors")
LEAK = "the secret of the function"


def asked(target, path, method="GET", headers=None, body=None, timeout=40):
    """An answer of the API."""
    if not target.gateway:
        raise Absent
    return send(target.gateway + path, method, target.gateway_headers | (headers or {}), body, target.ca, timeout)


def event(target, path="/open", **more):
    """The event that the function got."""
    return json.loads(asked(target, path, **more).body)


def message(answer):
    """Status, and the message that a gateway response carries."""
    try:
        said = json.loads(answer.body)
        text = said.get("message", said.get("Message"))
    except (ValueError, AttributeError):
        text = "without a message"
    return f"{answer.status} {text}"


# Routes ------------------------------------------------------------------------------------------------------------------

MISSING = "403 Missing Authentication Token"

for label, path, method, want in [
    ("route", "/open", "GET", "200"), ("unknown", "/nothing", "GET", MISSING), ("method", "/open", "DELETE", MISSING), ("head", "/open", "HEAD", "403 without a message"),
    ("root", "/", "GET", MISSING), ("any", "/all/x", "PATCH", "200"), ("greedy", "/all/a/b/c", "GET", "200"), ("greedy-nothing", "/all", "GET", MISSING), ("deeper", "/open/more", "GET", MISSING),
    ("case", "/Open", "GET", MISSING),
]:
    @probe(f"gateway-{label}", f"{method} {path}", want, f"{RESPONSES}: MISSING_AUTHENTICATION_TOKEN; {RESOURCES}", path=path, method=method)
    def _(target, path, method):
        answer = asked(target, path, method)
        return "200" if answer.status == 200 else message(answer)


@probe("gateway-literal", "A literal segment goes before a variable one", "/items/fixed", RESOURCES)
def _(target):
    return event(target, "/items/fixed")["resource"]


@probe("gateway-variable", "A variable segment is told by name", "/items/{id} 7", INTEGRATION)
def _(target):
    seen = event(target, "/items/7")
    return f"{seen['resource']} {(seen['pathParameters'] or {}).get('id')}"


@probe("gateway-proxy", "{proxy+} holds the rest of the path", "a/b", INTEGRATION)
def _(target):
    return event(target, "/all/a/b")["pathParameters"]["proxy"]


# The event ---------------------------------------------------------------------------------------------------------------


@probe("gateway-event-members", "The event has the members of format 1.0, and no others",
       "body headers httpMethod isBase64Encoded multiValueHeaders multiValueQueryStringParameters path pathParameters queryStringParameters requestContext resource stageVariables", INTEGRATION)
def _(target):
    return " ".join(sorted(event(target)))


@probe("gateway-event-nulls", "What is not there is null", "null null null null", INTEGRATION)
def _(target):
    seen = event(target, "/open")
    return " ".join(json.dumps(seen.get(name, "missing")) for name in ("queryStringParameters", "multiValueQueryStringParameters", "pathParameters", "body"))


@probe("gateway-query", "Query values are decoded; the last one counts, and all are there", "c d|['a b', 'c d']", INTEGRATION)
def _(target):
    seen = event(target, "/open?x=a%20b&x=c+d")
    return f"{seen['queryStringParameters']['x']}|{seen['multiValueQueryStringParameters']['x']}"


@probe("gateway-headers", "Header names keep the client's case, and all values are there", "X-MiXeD 1", INTEGRATION)
def _(target):
    seen = event(target, headers={"X-MiXeD": "1"})
    return next((f"{name} {seen['multiValueHeaders'][name][0]}" for name in seen["headers"] if name.lower() == "x-mixed"), "without it")


@probe("gateway-headers-last", "Of a header that comes twice the last value counts, and both are there", "2 1,2", INTEGRATION)
def _(target):
    import http.client
    import ssl
    if not target.gateway:
        raise Absent
    parts = urllib.parse.urlsplit(target.gateway)
    connection = http.client.HTTPSConnection(parts.hostname, parts.port, context=ssl.create_default_context(cafile=target.ca), timeout=20)
    connection.putrequest("GET", parts.path + "/open", skip_host=bool(target.gateway_headers))
    for field, value in target.gateway_headers.items():
        connection.putheader(field, value)
    connection.putheader("x-two", "1")
    connection.putheader("x-two", "2")
    connection.endheaders()
    seen = json.loads(connection.getresponse().read())
    connection.close()
    return f"{seen['headers'].get('x-two')} {','.join(seen['multiValueHeaders'].get('x-two', []))}"


@probe("gateway-context", "requestContext tells API, stage, resource, request and source", "all there", INTEGRATION)
def _(target):
    context = event(target)["requestContext"]
    wanted = {"accountId", "apiId", "domainName", "domainPrefix", "extendedRequestId", "httpMethod", "identity", "path", "protocol", "requestId", "requestTime", "requestTimeEpoch", "resourceId",
              "resourcePath", "stage"}
    return "all there" if wanted <= set(context) else f"without {' '.join(sorted(wanted - set(context)))}"


@probe("gateway-context-path", "requestContext.path has the stage, path does not", "/test/open /open", INTEGRATION)
def _(target):
    seen = event(target)
    return f"{seen['requestContext']['path']} {seen['path']}"


@probe("gateway-identity", "identity has every member, null where nothing is known", "all there", INTEGRATION)
def _(target):
    wanted = {"accessKey", "accountId", "caller", "cognitoAuthenticationProvider", "cognitoAuthenticationType", "cognitoIdentityId", "cognitoIdentityPoolId", "sourceIp", "user", "userAgent", "userArn"}
    held = event(target)["requestContext"]["identity"]
    return "all there" if wanted <= set(held) else f"without {' '.join(sorted(wanted - set(held)))}"


@probe("gateway-stage-variables", "Stage variables are in the event", "blue", VARIABLES)
def _(target):
    return (event(target)["stageVariables"] or {}).get("colour", "without them")


@probe("gateway-body", "A body arrives as text", "a body False", INTEGRATION)
def _(target):
    seen = event(target, method="POST", headers={"content-type": "text/plain"}, body=b"a body")
    return f"{seen['body']} {seen['isBase64Encoded']}"


@probe("gateway-body-binary", "and in base64 where its type is a binary media type", "AAEC/w== True", BINARY)
def _(target):
    seen = event(target, method="POST", headers={"content-type": "application/octet-stream"}, body=b"\0\1\2\xff")
    return f"{seen['body']} {seen['isBase64Encoded']}"


@probe("gateway-path-encoded", "Whether the path stays encoded", SILENT, INTEGRATION)
def _(target):
    return event(target, "/all/a%20b")["path"]


# The answer --------------------------------------------------------------------------------------------------------------

MALFORMED = "502 Internal server error"

for label, want in [
    ("text-status", "201"), ("no-status", "200"), ("null-headers", "200"), ("teapot", "418"), ("plain", "200"), ("truth-header", "200"),
    ("bad-status", MALFORMED), ("extra", MALFORMED), ("text", MALFORMED), ("number", MALFORMED), ("object-body", MALFORMED), ("no-list", MALFORMED), ("list-header", MALFORMED),
]:
    source = SILENT if label in ("text-status", "no-status", "extra") else f"{INTEGRATION}; {RESPONSES}"

    @probe(f"gateway-answer-{label}", f"An answer of the function: {label.replace('-', ' ')}", SILENT if source == SILENT else want, INTEGRATION, do=label)
    def _(target, do):
        answer = asked(target, f"/open?do={do}")
        return str(answer.status) if answer.status < 500 else message(answer)


@probe("gateway-answer-type", "An answer without a content type is application/json", "application/json", NOTES)
def _(target):
    return asked(target, "/open?do=plain").header("content-type")


@probe("gateway-answer-many", "multiValueHeaders are sent one by one", "a=1 b=2", INTEGRATION)
def _(target):
    return " ".join(asked(target, "/open?do=many").headers.get("set-cookie", []))


@probe("gateway-answer-both", "headers and multiValueHeaders are merged", "one three two", INTEGRATION)
def _(target):
    return " ".join(sorted(value for line in asked(target, "/open?do=both").headers.get("x-both", []) for value in line.replace(" ", "").split(",")))


@probe("gateway-answer-remapped", "WWW-Authenticate, Date and Server of a function arrive as x-amzn-Remapped-", "Bearer never mine", NOTES)
def _(target):
    answer = asked(target, "/open?do=remapped")
    return " ".join(str(answer.header(f"x-amzn-remapped-{name}")) for name in ("www-authenticate", "date", "server"))


@probe("gateway-answer-encoded", "A base64 answer is decoded where the client accepts the binary type", "000102ff", BINARY)
def _(target):
    return asked(target, "/open?do=encoded", headers={"accept": "application/octet-stream"}).body.hex()


@probe("gateway-answer-encoded-not", "and sent as it is where it does not", "AAEC/w==", BINARY)
def _(target):
    return asked(target, "/open?do=encoded", headers={"accept": "text/plain"}).text


@probe("gateway-request-id", "Every answer has an x-amzn-RequestId", "with one", guide("API Gateway logging variables", "apigateway/latest/developerguide/api-gateway-variables-for-access-logging.html", "requestId"))
def _(target):
    return "with one" if asked(target, "/open").header("x-amzn-requestid") else "without"


# Failure -----------------------------------------------------------------------------------------------------------------


@probe("gateway-fail", "A function that fails is 502", MALFORMED, RESPONSES)
def _(target):
    return message(asked(target, "/open?do=fail"))


@probe("gateway-fail-leak", "and nothing of what it said is shown", "nothing", INTEGRATION)
def _(target):
    answer = asked(target, "/open?do=fail")
    shown = answer.text + str(answer.headers)
    return "its error" if LEAK in shown or "RuntimeError" in shown else "nothing"


@probe("gateway-exit", "A function that ends is 502", MALFORMED, RESPONSES)
def _(target):
    return message(asked(target, "/open?do=exit"))


@probe("gateway-after-exit", "and answers again afterwards", "200", guide("Lambda execution environment", "lambda/latest/dg/lambda-runtime-environment.html", "Failures during the invoke phase"))
def _(target):
    asked(target, "/open?do=exit")
    return str(asked(target, "/open").status)


@probe("gateway-large", "An answer over 6 MB is 502", MALFORMED, f"{LIMITS}; {guide('Lambda quotas', 'lambda/latest/dg/gettingstarted-limits.html', 'Invocation payload: 6 MB')}")
def _(target):
    return message(asked(target, "/open?do=large"))


@probe("gateway-integration-timeout", "An integration's timeout is 504", "504 Endpoint request timed out", f"{RESPONSES}: INTEGRATION_TIMEOUT")
def _(target):
    return message(asked(target, "/short?do=sleep&for=1.5"))


@probe("gateway-function-timeout", "A function that does not end in its own time is 502", MALFORMED, RESPONSES)
def _(target):
    return message(asked(target, "/open?do=sleep&for=6"))


# Limits ------------------------------------------------------------------------------------------------------------------


@probe("gateway-body-7mb", "A body of 7 MB, more than a function takes", "413", f"{LIMITS}; {RESPONSES}: REQUEST_TOO_LARGE")
def _(target):
    return str(asked(target, "/open", "POST", {"content-type": "text/plain"}, b"x" * 7_000_000).status)


@probe("gateway-body-11mb", "A body of 11 MB, more than the API takes", "413", f"{LIMITS}; {RESPONSES}: REQUEST_TOO_LARGE")
def _(target):
    return str(asked(target, "/open", "POST", {"content-type": "text/plain"}, b"x" * 11_000_000).status)


@probe("gateway-body-1mb", "A body of 1 MB", "200", LIMITS)
def _(target):
    return str(asked(target, "/open?do=plain", "POST", {"content-type": "text/plain"}, b"x" * 1_000_000).status)


@probe("gateway-headers-large", "Headers of more than 10240 bytes", ("431", "400", "413"), f"{LIMITS}: total combined size of request line and header values")
def _(target):
    return str(asked(target, "/open", headers={"x-large": "x" * 10_300}).status)


@probe("gateway-throttled", "More calls than the burst are 429", "429 Too Many Requests", f"{THROTTLING}; {RESPONSES}: THROTTLED")
def _(target):
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: asked(target, "/busy"), range(12)))
    refused = [answer for answer in answers if answer.status != 200]
    return message(refused[0]) if refused else "200 twelve times"


@probe("gateway-throttled-later", "and it is let through again later", "200", THROTTLING)
def _(target):
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda _: asked(target, "/busy"), range(12)))
    time.sleep(1.1)
    return str(asked(target, "/busy").status)


for label, path, headers, want in [
    ("neither", "/asked", {}, "400 Missing required request parameters: [must, x-must]"), ("header", "/asked", {"x-must": "1"}, "400 Missing required request parameters: [must]"),
    ("both", "/asked?must=1", {"x-must": "1"}, "200"),
]:
    @probe(f"gateway-validated-{label}", f"A validator of parameters, with {label}", want, f"{VALIDATION}; {RESPONSES}: BAD_REQUEST_PARAMETERS", path=path, headers=headers)
    def _(target, path, headers):
        answer = asked(target, path, headers=headers)
        return "200" if answer.status == 200 else message(answer)


# Authorizers -------------------------------------------------------------------------------------------------------------

FORBIDDEN = "403 User is not authorized to access this resource"


def authorized(target, word, path="/kept/x", method="GET"):
    """What the authorizer's word leads to. A word of its own each time, so that nothing is kept from another probe."""
    answer = asked(target, path, method, {"authorization": f"{word} {uuid.uuid4()}"} if word is not None else {})
    said = "200" if answer.status == 200 else message(answer)
    # Newer texts say which policy denied; the beginning is what is documented.
    return FORBIDDEN if said.startswith(FORBIDDEN) else said


for word, want in [
    ("allow", "200"), ("narrow", "200"), ("elsewhere", FORBIDDEN), ("deny", FORBIDDEN), ("address", FORBIDDEN), ("not-action", FORBIDDEN), ("unauthorized", "401 Unauthorized"),
    ("fails", "500"), ("nested", "500"), ("no-policy", "500"), ("no-object", "500"),
]:
    @probe(f"gateway-authorizer-{word}", f"An authorizer that answers: {word}", want, f"{AUTHORIZER_OUTPUT}; {RESPONSES}", word=word)
    def _(target, word):
        said = authorized(target, word)
        return "500" if said.startswith("500") else said


@probe("gateway-authorizer-none", "Without the identity source it is 401, and nobody is asked", "401 Unauthorized", f"{AUTHORIZERS}: identity sources")
def _(target):
    return authorized(target, None)


@probe("gateway-authorizer-empty", "and with an empty one", "401 Unauthorized", f"{AUTHORIZERS}: identity sources: missing, null or empty")
def _(target):
    return message(asked(target, "/kept/x", headers={"authorization": ""}))


@probe("gateway-authorizer-context", "Its context reaches the function, as text", "somebody 7 true", AUTHORIZER_OUTPUT)
def _(target):
    seen = event(target, "/kept/x", headers={"authorization": f"allow {uuid.uuid4()}"})["requestContext"]["authorizer"]
    return f"{seen.get('principalId')} {seen.get('number')} {seen.get('truth')}"


def context_of(target, path, word):
    return event(target, path, headers={"authorization": word})["requestContext"]["authorizer"]["asked"]


@probe("gateway-authorizer-kept", "Its answer is kept for the same identity source", "the same answer", f"{AUTHORIZERS}: caching")
def _(target):
    word = f"allow {uuid.uuid4()}"
    return "the same answer" if context_of(target, "/kept/a", word) == context_of(target, "/kept/a", word) else "another answer"


@probe("gateway-authorizer-kept-paths", "also for another path of the API", "the same answer", f"{AUTHORIZERS}: caching")
def _(target):
    word = f"allow {uuid.uuid4()}"
    return "the same answer" if context_of(target, "/kept/a", word) == context_of(target, "/kept/b", word) else "another answer"


@probe("gateway-authorizer-kept-narrow", "whose policy is asked about each path: one made for the first path denies the second", FORBIDDEN, f"{AUTHORIZERS}: caching, the policy must apply to all resources")
def _(target):
    word = f"narrow {uuid.uuid4()}"
    asked(target, "/kept/a", headers={"authorization": word})
    said = message(asked(target, "/kept/b", headers={"authorization": word}))
    return FORBIDDEN if said.startswith(FORBIDDEN) else said


@probe("gateway-authorizer-kept-other", "and is not that of another identity source", "another answer", f"{AUTHORIZERS}: caching")
def _(target):
    first, second = f"allow {uuid.uuid4()}", f"allow {uuid.uuid4()}"
    return "the same answer" if context_of(target, "/kept/a", first) == context_of(target, "/kept/a", second) else "another answer"


@probe("gateway-authorizer-asking", "With a TTL of 0 it is asked each time", "another answer", f"{AUTHORIZERS}: authorizerResultTtlInSeconds")
def _(target):
    word = f"allow {uuid.uuid4()}"
    return "the same answer" if context_of(target, "/asking/a", word) == context_of(target, "/asking/a", word) else "another answer"


@probe("gateway-authorizer-leak", "What it says when it fails is not shown", "nothing", AUTHORIZERS)
def _(target):
    answer = asked(target, "/kept/x", headers={"authorization": f"fails {uuid.uuid4()}"})
    return "its error" if LEAK in answer.text + str(answer.headers) else "nothing"


# Direct invocation -------------------------------------------------------------------------------------------------------


def invoked(target, payload=b"{}", function="probe", **more):
    """Invoke, as the operator."""
    if not target.gateway:
        raise Absent
    return target.functions().invoke(FunctionName=function, Payload=payload, **more)


@probe("invoke", "Invoke answers what the function answered", "200", INVOKE)
def _(target):
    return told(lambda: invoked(target), lambda answer: json.loads(answer["Payload"].read())["statusCode"] == 200)


@probe("invoke-fails", "A function's failure is 200 with X-Amz-Function-Error", "200 Unhandled RuntimeError", INVOKE)
def _(target):
    return told(lambda: invoked(target, b'"fail"'), lambda answer: f"{answer.get('FunctionError')} {json.loads(answer['Payload'].read()).get('errorType')}")


@probe("invoke-unknown", "Invoke of no function", "404 ResourceNotFoundException", INVOKE)
def _(target):
    return told(lambda: invoked(target, function="probe-none"))


@probe("invoke-no-json", "Invoke with a payload that is no JSON", "400 InvalidRequestContentException", INVOKE)
def _(target):
    return told(lambda: invoked(target, b"no json"))


@probe("invoke-dry", "Invoke with DryRun", "204", INVOKE)
def _(target):
    return told(lambda: invoked(target, InvocationType="DryRun"))


@probe("invoke-event", "Invoke without waiting", "202", INVOKE)
def _(target):
    return told(lambda: invoked(target, InvocationType="Event"))


@probe("invoke-large", "Invoke with more than 6 MB", "413 RequestTooLargeException", INVOKE)
def _(target):
    return told(lambda: invoked(target, b'"' + b"x" * (6 * 1024 * 1024 + 10) + b'"'))


@probe("invoke-denied", "Invoke by a role that may not", "403 AccessDeniedException", INVOKE)
def _(target):
    if not target.gateway:
        raise Absent
    return told(lambda: target.functions(**target.role("probe-nothing")).invoke(FunctionName="probe", Payload=b"{}"))
