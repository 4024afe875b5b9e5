"""What Groupcast calls: a consumer with `run = "http"` posts each job here, and what this answers is its result."""

from django.conf import settings
from django.http import JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
from standardwebhooks import Webhook, WebhookVerificationError

from .querysets import QUERYSETS


@csrf_exempt
@require_POST
def run(request):
    """Evaluates the queryset that the job asks for.

    It may be asked for the same job twice (`Idempotency-Key` is the job's id): reading bears that. A 4xx fails the job for
    good, a 5xx is tried again.
    """
    try:
        job = Webhook(settings.JOBS_SECRET).verify(request.body, dict(request.headers))
    except WebhookVerificationError as error:
        return JsonResponse({"code": "bad_signature", "detail": str(error)}, status=401)
    queryset_id = job["message"].get("queryset_id")
    if queryset_id not in QUERYSETS:
        return JsonResponse({"code": "unknown_queryset", "detail": f"there is no queryset {queryset_id}"}, status=422)
    rows = list(QUERYSETS[queryset_id]())
    columns = list(rows[0]) if rows else []
    return JsonResponse({"columns": columns, "rows": [list(row.values()) for row in rows], "row_count": len(rows)})
