# Reference values for mean bias reduction of logistic models that are completely separated.
#
#   Rscript tests/references/firth.R
#
# Writes firth.json.  Needs brglm2.  Case k has rows i = 1 ... n, x = sin(k i + i^2),
# z = cos(k^2 i + i^2 / 2), and y = 1 where x + z / 2 > k / 10: a line separates them.

suppressPackageStartupMessages(library(brglm2))
script <- sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))
here <- if (length(script)) dirname(script[1]) else "."

numbers <- function(x) paste0("[", paste(sprintf("%.12g", x), collapse = ", "), "]")
cases <- character()
sizes <- c(12, 20, 40, 80, 120, 30)
for (k in seq_along(sizes)) {
  i <- seq_len(sizes[k])
  x <- sin(k * i + i^2)
  z <- cos(k^2 * i + 0.5 * i^2)
  y <- as.numeric(x + z / 2 > k / 10)
  control <- list(epsilon = 1e-13, maxit = 20000, slowit = 1, max_step_factor = 30)
  fit <- suppressWarnings(
    glm(y ~ x + z, family = binomial(), method = "brglmFit", type = "AS_mean", control = control))
  stopifnot(fit$converged)
  cases <- c(cases, sprintf('{"k": %d, "n": %d, "coefficients": %s, "standard_errors": %s}', k, sizes[k],
                            numbers(coef(fit)), numbers(sqrt(diag(vcov(fit))))))
}
writeLines(c("{", sprintf(' "R": "%s",', R.version.string), sprintf(' "brglm2": "%s",', packageVersion("brglm2")),
             ' "cases": [', paste0("  ", cases, c(rep(",", length(cases) - 1), "")), " ]", "}"),
           file.path(here, "firth.json"))
