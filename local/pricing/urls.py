"""One route, in moto's form."""

from local.pricing.responses import PricingResponse

url_bases = [r"https?://(api\.)?pricing\.(.+)\.amazonaws\.com"]

url_paths = {"{0}/$": PricingResponse.dispatch}
