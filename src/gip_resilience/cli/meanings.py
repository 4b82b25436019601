"""Codes and statuses in words: what each means, and why it is treated as it is. Pure data."""

from __future__ import annotations

from typing import Final

from gip_resilience.taxonomy import Category

MEANINGS: Final = {
    "missing_api_key": "The request carries no API key.",
    "invalid_api_key": "The API key is malformed, or nobody's.",
    "unauthorized": "The key is good, but may not do this.",
    "rate_limit_exceeded": "The quota is used up until it resets.",
    "invalid_request": "The request cannot be parsed: its size, format or content type.",
    "invalid_argument": "A field is missing, or does not suit the API or the model.",
    "not_found": "There is no such endpoint.",
    "unknown_model": "There is no such model.",
    "invalid_content_media": "Attached media cannot be processed.",
    "unavailable_content_media": "Media the request links to cannot be fetched.",
    "unsafe_content": "A safety check before the model refused the content.",
    "unknown_app": "There is no such app.",
    "invalid_app": "The app exists, but cannot be used.",
    "unsupported_interface": "The model does not offer this API.",
    "unknown_workspace": "The workspace of the key cannot be found.",
    "failed_request": "The gateway failed to build the model's request, or to read its answer.",
    "internal_error": "The gateway itself failed.",
    "model_server_error": "The model answered with a server error.",
    "model_overloaded": "The model is overloaded and did not take the request.",
    "model_unavailable": "The gateway cannot reach the model.",
    "model_timeout": "The model did not answer in time.",
    "stream_error": "The stream failed on its way from the model.",
    "stream_terminated": "The model ended the stream before its end.",
    "connect_error": "No connection could be made.",
    "connect_timeout": "No connection could be made in time.",
    "refused_stream": "The server refused the HTTP/2 stream without looking at it.",
    "tls_error": "The server's certificate does not verify, or TLS failed otherwise.",
    "pool_timeout": "All of the client's own connections were in use for too long.",
    "invalid_request_local": "The client library refused to send the request.",
    "read_timeout": "The answer did not come in time.",
    "write_timeout": "The request could not be sent in time.",
    "connection_lost": "The connection broke before the whole answer had come.",
    "protocol_error": "What came back is not HTTP.",
    "truncated_body": "A JSON answer breaks off.",
    "stream_reset": "The connection broke in the middle of an event stream.",
    "stream_stalled": "An event stream fell silent.",
    "stream_garbled": "An event of a stream is not what its protocol promises.",
    "stream_diverged": "A broken stream was replayed, and the answer was another one.",
    "stream_gap": "A stream was resumed, and events were left out or another answer began.",
    "not_a_stream": "An attempt to go on with a stream was answered with something else.",
    "html_200": "A good status, but an HTML page where JSON was promised.",
    "error_200": "A good status, but an error in the body that has no name.",
}
"""Codes in a sentence each: the gateway's own, then the ones given here to what has no code."""

STATUSES: Final = {
    400: "The server does not understand the request, or will not take it as it is.",
    401: "The key is missing, or not accepted.",
    402: "Something has to be paid first.",
    403: "The key may not do this, or somebody in between forbids it.",
    404: "There is nothing at this address.",
    405: "There is something at this address, but not for this method.",
    407: "A proxy in between wants to be told who asks.",
    408: "The server waited for the request, and did not get all of it in time.",
    409: "The request contradicts what the server holds.",
    410: "What was at this address is gone.",
    413: "The body is larger than the server takes.",
    415: "The body is of a type that the server does not take.",
    422: "The request can be read, but makes no sense to the server.",
    425: "The server does not risk a request that came with the TLS handshake, because it might be a replay.",
    429: "Too many requests: a quota is used up until it resets.",
    431: "The headers are larger than the server takes.",
    451: "The law forbids it.",
    499: "Whoever asked hung up before the answer; a proxy's status.",
    500: "Something failed at the server, and it does not say what.",
    501: "The server cannot do this at all.",
    502: "A proxy or gateway got nothing it could use from the server behind it.",
    503: "Temporarily unavailable: a server, or one in between, takes no requests now.",
    504: "A proxy or gateway waited for the server behind it, in vain.",
    529: "The server is overloaded; a status of Anthropic's.",
}
"""What statuses say where the body names nothing (RFC 9110, section 15, RFC 6585, and habit)."""

WHY: Final = {
    "missing_api_key": "Without a key the next request is refused as this one was. Give the client its key.",
    "unauthorized": "Who is asking is known, and may not: another attempt, or a renewed key, changes"
    " nothing.",
    "unknown_model": "The host works and has looked it up; a name that is not there now is not there in a"
    " second.",
    "unavailable_content_media": "The link leads to somebody else's server; whether and when it works again"
    " is not for the gateway's circuits to learn.",
    "unknown_workspace": "Although a 5xx, it is about the account: asking again finds the workspace as"
    " little.",
    "failed_request": "Although a 5xx, it comes of this request or of this answer, and would again.",
    "internal_error": "The gateway publishes it as not to be retried. It does count against the host, whose"
    " fault it is.",
    "model_server_error": "One request of many fails like this, and the next succeeds; the host is well, the"
    " model may not be.",
    "model_overloaded": "It was not taken, so that sending it again is safe. Waits grow and are drawn by"
    " lot, because all whom it turned away come back.",
    "model_unavailable": "The gateway has looked and found nobody: retries only add load. The model's"
    " circuit opens at once, and one probe a time finds out when it is back.",
    "model_timeout": "The model may be at work on it still: one more attempt, at twice the price of the"
    " budget.",
    "refused_stream": "Provably not looked at (RFC 9113, 8.7), so that sending it again is safe.",
    "tls_error": "A certificate that does not verify now will not in a second, and might be somebody else's.",
    "pool_timeout": "The bottleneck is in this process; a retry would stand in the same queue.",
    "stream_diverged": "What was handed up cannot be taken back, and the rest of another answer does not fit"
    " to it.",
    "stream_gap": "Events that are missing cannot be told from ones that never were.",
    "html_200": "A page of a proxy or a portal, not of the gateway: another attempt may get through to it.",
}
"""Reasons of single codes; those of all the others are their category's."""

STATUS_REASONS: Final = {
    408: "The request did not arrive whole. It is sent once more; that a proxy says so makes it no"
    " certainty.",
    409: "What the server holds does not change by asking again.",
    425: "The server has asked for just that: the same request again, after the handshake (RFC 8470).",
    500: "It may have been executed, and nobody says what failed: one more attempt, at twice the price of"
    " the budget.",
    502: "It comes from a proxy, or from the host's front, and mostly passes in seconds; they know nothing"
    " of models, so that it counts against the host alone.",
    503: "It says that it passes. It comes from the host's front, which knows nothing of models, so that it"
    " counts against the host alone.",
    504: "The server behind may be at work on it still: one more attempt, at twice the price of the budget.",
}
"""Reasons of single statuses whose body names nothing; those of all the others are their category's."""

REASONS: Final = {
    Category.SUCCESS: "There is an answer.",
    Category.AUTH: "The same key is refused again, and many refusals get a key locked.",
    Category.PERMISSION: "Who is asking is known, and may not: another attempt changes nothing.",
    Category.RATE_LIMIT: "Nobody's health is at fault, so that no circuit counts it. Until the reset every"
    " request is refused: all callers of the key wait together, and are let go by and by.",
    Category.BILLING: "Time does not pay a bill. It looks like a rate limit, and is not one.",
    Category.INVALID: "The same request is wrong the next time, too. The host has answered, so that it"
    " works.",
    Category.NOT_FOUND: "The host works and has looked: what is not there now is not there in a second.",
    Category.CONTENT: "The same content is refused the next time, too.",
    Category.SAFETY: "A refusal is an answer; asking until one gets through is what filters are there"
    " against.",
    Category.CONFIG: "Somebody has to change a setting; another attempt changes none.",
    Category.GATEWAY: "The gateway failed at this request and would again.",
    Category.SERVER: "One request of many fails like this, and the next succeeds.",
    Category.OVERLOAD: "It was not taken, so that sending it again is safe. Waits grow and are drawn by lot,"
    " because all whom it turned away come back.",
    Category.UNAVAILABLE: "Nobody is there: retries only add load. The circuit opens, and one probe a time"
    " finds out when somebody is back.",
    Category.TIMEOUT: "It may have been executed: one more attempt, at twice the price of the budget, and"
    " the report says so.",
    Category.STREAM: "What was handed up is kept: before the first output the stream is begun anew, after it"
    " the answer is replayed or resumed, where that is certain to be the same one.",
    Category.INTERMEDIARY: "It comes from a proxy, or from the host's front, which know nothing of models:"
    " so it counts against the host alone.",
    Category.PROTOCOL: "An answer that is no answer: it was executed, and one more attempt may bring it"
    " whole.",
    Category.CANCELLED: "The caller, or somebody in between, did not want it any more.",
    Category.CONNECT: "Nothing was sent, so that sending it is safe, whatever it is.",
    Category.POOL: "The bottleneck is in this process; a retry would stand in the same queue.",
    Category.UNKNOWN_4XX: "A 4xx says that the request is at fault, whatever it means exactly.",
    Category.UNKNOWN_5XX: "It may have been executed, and nobody says what failed: one more attempt, at"
    " twice the price of the budget.",
}
"""Reasons by category."""
