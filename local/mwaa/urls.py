"""Routes, in moto's form. The signing name, and so the host, is `airflow`."""

from local.mwaa.responses import MWAAResponse

url_bases = [r"https?://(api\.|env\.|ops\.)?airflow\.(.+)\.amazonaws\.com"]

url_paths = {
    "{0}/environments$": MWAAResponse.dispatch,
    "{0}/environments/(?P<name>[^/]+)$": MWAAResponse.dispatch,
    "{0}/clitoken/(?P<name>[^/]+)$": MWAAResponse.dispatch,
    "{0}/webtoken/(?P<name>[^/]+)$": MWAAResponse.dispatch,
    "{0}/restapi/(?P<name>[^/]+)$": MWAAResponse.dispatch,
    "{0}/metrics/environments/(?P<name>[^/]+)$": MWAAResponse.dispatch,
    "{0}/tags/(?P<arn>.+)$": MWAAResponse.dispatch,
}
