"""Human review: the items, the reviewers' queue, the local web page, and exchange with other annotation tools."""
