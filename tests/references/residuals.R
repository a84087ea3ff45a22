# Reference values for residuals and influence: R's residuals.glm, rstandard, rstudent,
# hatvalues, cooks.distance, dffits and dfbetas, and statmod's qresid where the response
# is continuous.
#
#   Rscript tests/references/residuals.R
#
# after glm.R, whose data sets it reads.  Writes residuals.json.  Needs statmod.
#
# glm() with glm.control(epsilon = 1e-15, maxit = 200), started again from where Fisher
# scoring of common.R has no more to gain, so that the score is below 1e-9.  Rows with a
# missing value are null, as is what R calls NA or NaN.

suppressPackageStartupMessages(library(statmod))
script <- sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))
here <- if (length(script)) dirname(script[1]) else "."
source(file.path(here, "common.R"))

measured <- function(name, data, formula, family, link, weights = NULL, kind = "variance", offset = NULL) {
  frame <- stored(data)
  frame$.w <- if (is.null(weights)) rep(1, nrow(frame)) else frame[[weights]]
  frame$.o <- if (is.null(offset)) rep(0, nrow(frame)) else eval(parse(text = offset), frame)
  fam <- switch(family, gaussian = gaussian(link), poisson = poisson(link), binomial = binomial(link),
                gamma = Gamma(link), inverse_gaussian = inverse.gaussian(link), quasipoisson = quasipoisson(link))
  known <- family %in% c("poisson", "binomial")
  model <- as.formula(as_r(formula), env = globalenv())
  args <- list(model, family = fam, data = frame, weights = as.name(".w"), offset = as.name(".o"),
               na.action = na.exclude, control = glm.control(epsilon = EPSILON, maxit = MAXIT))
  fit <- do.call("glm", args)
  keep <- !is.na(coef(fit))
  o <- if (is.null(fit$offset)) 0 else fit$offset
  best <- polish(coef(fit)[keep], model.matrix(fit)[, keep, drop = FALSE], fit$y, fit$prior.weights, o, fam, known)
  stopifnot(best$score < SCORE_LIMIT)
  args$start <- replace(rep(0, length(keep)), keep, best$beta)
  fit <- suppressWarnings(do.call("glm", args))
  # qresid knows no weights of inverse Gaussian responses
  quantile <- switch(family, gamma = qresid(fit), inverse_gaussian = qnorm(pinvgauss(
    fit$y, mean = fitted(fit), dispersion = summary(fit)$dispersion / fit$prior.weights, log.p = TRUE), log.p = TRUE))
  used <- !is.na(residuals(fit, "response"))
  column <- function(x) array_json(replace(as.numeric(x), !is.finite(x) | !used, NA))
  CASES[[name]] <<- list(
    name = name, data = paste0(data, ".csv"), formula = formula, family = family, link = link,
    weights = if (is.null(weights)) NULL else list(type = kind, column = weights), offset = offset,
    names = array_json(names(coef(fit))[keep]),
    residuals = list(
      response = column(residuals(fit, "response")), pearson = column(residuals(fit, "pearson")),
      deviance = column(residuals(fit, "deviance")), working = column(residuals(fit, "working")),
      standardized_pearson = column(rstandard(fit, type = "pearson")),
      standardized_deviance = column(rstandard(fit)), studentized = column(rstudent(fit))),
    quantile = if (is.null(quantile)) NULL else column(naresid(fit$na.action, quantile)),
    leverage = column(hatvalues(fit)), cooks_distance = column(cooks.distance(fit)), dffits = column(dffits(fit)),
    dfbetas = rows_json(unname(replace(dfbetas(fit), !is.finite(dfbetas(fit)) | !used, NA))),
    score = best$score)
}

measured("gaussian", "mtcars", "mpg ~ wt + hp + C(cyl)", "gaussian", "identity", "qsec", offset = "0.3 * drat")
measured("gaussian_log", "trees", "Volume ~ Girth + Height", "gaussian", "log")
measured("poisson", "warpbreaks", "breaks ~ wool * tension", "poisson", "log")
measured("poisson_offset", "Insurance", "Claims ~ C(District) + Group + Age", "poisson", "log", offset = "log(Holders)")
measured("poisson_missing", "airquality", "Ozone ~ Wind + Temp + Solar_R", "poisson", "log")
measured("quasipoisson", "quine", "Days ~ Eth + Sex + Age", "quasipoisson", "log")
measured("bernoulli", "infert", "case ~ age + parity + spontaneous", "binomial", "logit")
measured("trials", "menarche", "cbind(Menarche, Not) ~ Age", "binomial", "probit")
measured("trials_cloglog", "esoph", "cbind(ncases, ncontrols) ~ agegp + alcgp", "binomial", "cloglog")
measured("gamma", "trees", "Volume ~ Girth + Height", "gamma", "log", "Girth")
measured("gamma_inverse", "clotting", "lot1 ~ log(u)", "gamma", "inverse", offset = "u * 0.00001")
measured("inverse_gaussian", "trees", "Volume ~ Girth + Height", "inverse_gaussian", "log", "Height")
measured("alone", "mtcars", "mpg ~ wt + I(1 * (carb > 7))", "gamma", "log")

write_cases("residuals.json", c("statmod"), SETTINGS, CASES)
