# Reference values for profile likelihood limits, and for prediction intervals of linear models.
#
#   Rscript tests/references/profile.R
#
# after glm.R and families.R, whose data sets it reads.  Writes profile.json.  Needs MASS.
#
# A limit of coefficient j is the root in b of
#
#     (deviance(b_j = b, others refitted) - deviance) / dispersion - q^2,
#
# q the quantile of the normal distribution, or of t where the dispersion was estimated (there confint() still takes the
# normal one): what confint() inverts, by root finding on refits instead of its spline, which is off by up to 5e-3 standard
# errors.

suppressPackageStartupMessages(library(MASS))
script <- sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))
here <- if (length(script)) dirname(script[1]) else "."
source(file.path(here, "common.R"))

CONTROL <- glm.control(epsilon = 1e-15, maxit = 200)

# The deviance with coefficient j held at b, its column in the offset: Fisher scoring with halved steps from a start.
refit <- function(X, y, w, o, fam, j, b, start) {
  rest <- X[, -j, drop = FALSE]
  at <- function(beta) {
    eta <- drop(rest %*% beta) + o + X[, j] * b
    mu <- fam$linkinv(eta)
    possible <- (is.null(fam$valideta) || fam$valideta(eta)) && (is.null(fam$validmu) || fam$validmu(mu))
    list(beta = beta, eta = eta, mu = mu, deviance = if (possible) sum(fam$dev.resids(y, mu, w)) else Inf)
  }
  now <- at(start)
  stopifnot(is.finite(now$deviance))
  for (i in 1:500) {
    root <- sqrt(w / fam$variance(now$mu)) * fam$mu.eta(now$eta)
    step <- qr.coef(qr(rest * root, LAPACK = TRUE), sqrt(w / fam$variance(now$mu)) * (y - now$mu))
    for (half in 0:40) {
      trial <- at(now$beta + step / 2^half)
      if (is.finite(trial$deviance) && trial$deviance <= now$deviance + 1e-12 * (1 + abs(now$deviance))) break
    }
    now <- trial
    if (sqrt(sum((root * (rest %*% step))^2)) < 1e-9) return(now$deviance)
  }
  stop("no refit")
}

limits <- function(name, data, formula, family, link, fam, known, weights = NULL, kind = "variance", offset = NULL,
                   level = 0.95, extra = list()) {
  frame <- stored(data)
  if (kind == "frequency") frame <- written_out(frame, weights)
  frame$.w <- if (is.null(weights) || kind == "frequency") 1 else frame[[weights]]
  frame$.o <- if (is.null(offset)) 0 else eval(parse(text = offset), frame)
  model <- as.formula(as_r(formula), env = globalenv())
  fit <- glm(model, family = fam, data = frame, weights = .w, offset = .o, control = glm.control(1e-12, 200))
  X <- model.matrix(fit); y <- fit$y; w <- fit$prior.weights; o <- frame$.o
  stopifnot(fit$rank == ncol(X), length(o) == nrow(X), all(w > 0))
  best <- polish(coef(fit), X, y, w, o, fam, known)
  beta <- best$beta
  deviance <- sum(fam$dev.resids(y, best$mu, w))
  R <- qr.R(qr(X * best$root, LAPACK = FALSE, tol = 1e-14))
  error <- sqrt(rowSums(backsolve(R, diag(ncol(R)))^2) * best$dispersion)
  covariance <- chol2inv(R)
  q2 <- if (known) qchisq(level, 1) else qf(level, 1, best$df)
  end <- function(j, side) {
    ratio <- function(b) {
      # where the others would be if the likelihood were normal
      start <- beta[-j] + covariance[-j, j] / covariance[j, j] * (b - beta[j])
      (refit(X, y, w, o, fam, j, b, start) - deviance) / best$dispersion - q2
    }
    far <- side * 1.1 * sqrt(q2) * error[j]
    for (i in 1:40) { if (ratio(beta[j] + far) > 0) break; far <- 1.3 * far }
    uniroot(ratio, sort(c(beta[j] + 1e-3 * far, beta[j] + far)), tol = 1e-12, maxiter = 200)$root
  }
  lower <- vapply(seq_along(beta), end, 0, side = -1)
  upper <- vapply(seq_along(beta), end, 0, side = 1)
  # confint() takes the normal quantile, whatever the dispersion
  plain <- suppressWarnings(suppressMessages(confint(fit, level = 2 * pnorm(sqrt(q2)) - 1)))
  # the spline is near, where it is there at all
  off <- max(abs(cbind(lower, upper) - plain) / error, na.rm = TRUE)
  message(name, ": the spline is off by ", format(off, digits = 2), " standard errors")
  # profile() estimates a dispersion for what is neither poisson nor binomial
  stopifnot(off < 5e-3 || family == "negative_binomial")
  CASES[[name]] <<- c(list(name = name, data = paste0(data, ".csv"), formula = formula, family = family, link = link),
    extra, list(weights = if (is.null(weights)) NULL else list(type = kind, column = weights), offset = offset,
    level = level, names = array_json(names(coef(fit))), errors = array_json(error),
    lower = array_json(lower), upper = array_json(upper)))
}

limits("claims", "Insurance", "Claims ~ Group + Age", "poisson", "log", poisson(), TRUE, offset = "log(Holders)")
limits("claims_90", "Insurance", "Claims ~ Group + Age", "poisson", "log", poisson(), TRUE, offset = "log(Holders)",
       level = 0.9)
limits("sprays", "InsectSprays", "count ~ spray", "poisson", "sqrt", poisson("sqrt"), TRUE)
limits("birthwt", "birthwt", "low ~ age + lwt + smoke + ht + ptl", "binomial", "logit", binomial(), TRUE)
limits("birthwt_probit", "birthwt", "low ~ age + lwt + smoke + ht", "binomial", "probit", binomial("probit"), TRUE,
       level = 0.99)
limits("beetles", "beetles", "cbind(killed, survived) ~ dose", "binomial", "cloglog", binomial("cloglog"), TRUE)
limits("budworm", "budworm", "cbind(dead, alive) ~ ldose * sex", "binomial", "logit", binomial(), TRUE)
limits("menarche", "menarche", "Proportion ~ Age", "binomial", "logit", binomial(), TRUE, weights = "Total", kind = "trials")
limits("clotting", "clotting", "lot1 ~ log(u)", "gamma", "inverse", Gamma(), FALSE)
limits("leuk", "leuk", "time ~ ag + log(wbc)", "gamma", "log", Gamma("log"), FALSE)
limits("cpus", "cpus", "perf ~ log(mmax) + log(mmin)", "gamma", "log", Gamma("log"), FALSE, weights = "syct")
limits("cars_copies", "cars", "dist ~ speed", "inverse_gaussian", "log", inverse.gaussian("log"), FALSE,
       weights = "constant", kind = "frequency")
limits("trees", "trees", "Volume ~ Girth + Height", "gaussian", "log", gaussian("log"), FALSE)
limits("cars", "cars", "dist ~ speed", "gaussian", "identity", gaussian(), FALSE, level = 0.9)
limits("quine", "quine", "Days ~ Eth + Sex + Age", "negative_binomial", "log", negative.binomial(theta = 1.5), TRUE,
       extra = list(family_arguments = list(theta = 1.5)))
limits("warpbreaks", "warpbreaks", "breaks ~ wool * tension", "quasipoisson", "log", quasipoisson(), FALSE)

write_cases("profile.json", "MASS", list(epsilon = 1e-15, maxit = 200, uniroot_tol = 1e-12), CASES)
