# Reference values for estimated marginal means, their contrasts, and average
# marginal effects.
#
#   Rscript tests/references/effects.R
#
# after glm.R, whose data sets it reads.  Writes effects.json.  Needs emmeans.
#
# Means and contrasts are emmeans' own, on fits with epsilon = 1e-15 whose scaled
# score is below 1e-9.  Average effects are written out here: the mean over rows
# of the predicted mean with a column moved (Richardson extrapolation of central
# differences) or set to a level, and their Jacobian by differences in the
# coefficients; rows count by their prior weights.

suppressPackageStartupMessages(library(emmeans))
script <- sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))
here <- if (length(script)) dirname(script[1]) else "."
source(file.path(here, "common.R"))
# p-values of the studentised range and more digits than are printed
emm_options(opt.digits = FALSE)

fit_of <- function(data, formula, fam, offset, known) {
  frame <- stored(data)
  frame$.offset <- if (is.null(offset)) 0 else eval(parse(text = offset), frame)
  model <- as.formula(as_r(formula), env = globalenv())
  assign("frame", frame, envir = globalenv())
  assign("fam", fam, envir = globalenv())
  call <- if (is.null(offset)) {
    bquote(glm(.(model), family = fam, data = frame, control = glm.control(epsilon = EPSILON, maxit = MAXIT)))
  } else {
    bquote(glm(.(model), family = fam, data = frame, offset = .offset, control = glm.control(epsilon = EPSILON, maxit = MAXIT)))
  }
  # steps from where glm() stopped, until the score is small
  for (i in 1:20) {
    fit <- eval(call, globalenv())
    X <- model.matrix(fit)
    s <- state(coef(fit), X, fit$y, fit$prior.weights, if (is.null(fit$offset)) 0 else fit$offset, fam, known)
    if (s$score < SCORE_LIMIT) break
    call$start <- coef(fit)
  }
  if (s$score >= SCORE_LIMIT) stop("score ", s$score, " of ", formula)
  stopifnot(!anyNA(coef(fit)))
  fit
}

# The rows of a summary of emmeans, whatever its columns are called.
columns_of <- function(frame, tests) {
  pick <- function(names) frame[[intersect(names, names(frame))[1]]]
  result <- list(
    estimate = array_json(pick(c("emmean", "rate", "prob", "response", "estimate", "ratio", "odds.ratio"))),
    se = array_json(frame$SE),
    lower = array_json(pick(c("lower.CL", "asymp.LCL"))),
    upper = array_json(pick(c("upper.CL", "asymp.UCL"))))
  if (tests)
    result <- c(result, list(stat = array_json(pick(c("t.ratio", "z.ratio"))), pvalue = array_json(frame$p.value)))
  result
}

# emmeans takes z for quasi families, where summary.glm takes t.
request <- function(fit, known, specs, by = NULL, at = list(), weights = "equal", type = "link", level = 0.95,
                    offset = NULL, method = NULL, adjust = "none") {
  args <- list(fit, specs = specs, by = by, at = at, weights = weights)
  if (!is.null(offset)) args$offset <- offset
  if (!known) args$df <- fit$df.residual
  means <- suppressMessages(do.call(emmeans, args))
  table <- summary(means, infer = c(TRUE, FALSE), type = type, level = level)
  result <- list(specs = array_json(specs), by = if (is.null(by)) NULL else array_json(by),
                 at = lapply(at, array_json), weights = weights, type = type, level = level, offset = offset,
                 means = columns_of(table, FALSE))
  if (!is.null(method)) {
    found <- summary(contrast(means, if (method == "reference") "trt.vs.ctrl1" else method),
                     infer = c(TRUE, TRUE), type = type, level = level, adjust = adjust)
    result <- c(result, list(method = method, adjust = adjust, contrasts = columns_of(found, TRUE)))
  }
  result
}

# ------------------------------------------------------- average marginal effects

average_effects <- function(fit, numbers, factors) {
  data <- get("frame", globalenv())
  weight <- fit$prior.weights / sum(fit$prior.weights)
  terms <- delete.response(terms(fit))
  offset <- if (is.null(fit$offset)) 0 else fit$offset
  C <- vcov(fit)
  predicted <- function(frame, beta) {
    X <- model.matrix(terms, model.frame(terms, frame, xlev = fit$xlevels))
    sum(weight * fit$family$linkinv(drop(X %*% beta) + offset))
  }
  moved <- function(column, h, beta) {
    up <- down <- data
    up[[column]] <- up[[column]] + h
    down[[column]] <- down[[column]] - h
    (predicted(up, beta) - predicted(down, beta)) / (2 * h)
  }
  slope <- function(column, beta) {
    h <- 2e-3 * (if (min(data[[column]]) > 0) min(data[[column]]) else sd(data[[column]]))
    a <- moved(column, h, beta); b <- moved(column, h / 2, beta); c <- moved(column, h / 4, beta)
    one <- (4 * b - a) / 3; two <- (4 * c - b) / 3
    (16 * two - one) / 15
  }
  change <- function(column, level, base, beta) {
    up <- down <- data
    up[[column]] <- if (is.factor(up[[column]])) factor(level, levels = levels(up[[column]])) else as.numeric(level)
    down[[column]] <- if (is.factor(down[[column]])) factor(base, levels = levels(down[[column]])) else as.numeric(base)
    predicted(up, beta) - predicted(down, beta)
  }
  with_error <- function(variable, contrast, f) {
    beta <- coef(fit)
    gradient <- vapply(seq_along(beta), function(j) {
      h <- 1e-3 * sqrt(C[j, j])
      at <- function(h) { b <- beta; b[j] <- b[j] + h; u <- f(b); b[j] <- beta[j] - h; (u - f(b)) / (2 * h) }
      (4 * at(h) - at(2 * h)) / 3
    }, 0)
    list(variable = variable, contrast = contrast, effect = f(beta), se = sqrt(drop(gradient %*% C %*% gradient)))
  }
  found <- lapply(numbers, function(column) with_error(column, "dydx", function(beta) slope(column, beta)))
  for (column in factors) {
    levels <- if (is.factor(data[[column]])) levels(data[[column]]) else as.character(sort(unique(data[[column]])))
    for (level in levels[-1])
      found <- c(found, list(with_error(column, paste(level, "-", levels[1]),
                                        local({ l <- level; function(beta) change(column, l, levels[1], beta) }))))
  }
  found
}


case <- function(name, data, formula, family, link, fam, known, requests, numbers = character(), factors = character(),
                 offset = NULL) {
  fit <- fit_of(data, formula, fam, offset, known)
  asked <- lapply(requests, function(r) do.call(request, c(list(fit, known), r)))
  names(asked) <- seq_along(asked)
  effects <- average_effects(fit, numbers, factors)
  if (length(effects)) names(effects) <- seq_along(effects)
  CASES[[name]] <<- list(name = name, data = paste0(data, ".csv"), formula = formula, r_formula = as_r(formula),
                         family = family, link = link, weights = NULL, offset = offset,
                         requests = asked, effects = effects)
}

case("warpbreaks", "warpbreaks", "breaks ~ wool * tension", "poisson", "log", poisson(), TRUE,
     list(list("tension", by = "wool", method = "pairwise", adjust = "tukey"),
          list("tension", by = "wool", type = "response", method = "pairwise", adjust = "tukey"),
          list("tension", type = "response", method = "reference", adjust = "bonferroni", level = 0.9),
          list(c("wool", "tension"), method = "pairwise", adjust = "bonferroni"),
          list("tension", weights = "proportional")),
     factors = c("wool", "tension"))
case("infert", "infert", "case ~ education + C(induced) + C(spontaneous) + age + log(parity)", "binomial", "logit",
     binomial(), TRUE,
     list(list("education", method = "pairwise", adjust = "none"),
          list("education", weights = "proportional", type = "response", method = "pairwise", adjust = "tukey"),
          list("induced", by = "spontaneous", type = "response", method = "reference"),
          list("induced", at = list(age = c(25, 35), parity = 2), type = "response", method = "pairwise"),
          list(c("education", "age"), at = list(age = c(25, 35)))),
     numbers = c("age", "parity"), factors = c("education", "induced", "spontaneous"))
case("infert_probit", "infert", "case ~ education + spontaneous * age", "binomial", "probit",
     binomial("probit"), TRUE,
     list(list("education", type = "response", method = "pairwise")),
     numbers = c("age", "spontaneous"), factors = "education")
case("esoph", "esoph", "cbind(ncases, ncontrols) ~ agegp + alcgp", "binomial", "logit", binomial(), TRUE,
     list(list("agegp", type = "response", method = "pairwise", adjust = "tukey")),
     factors = "alcgp")
case("toothgrowth", "ToothGrowth", "len ~ supp * C(dose)", "gaussian", "identity", gaussian(), FALSE,
     list(list("dose", by = "supp", method = "pairwise", adjust = "tukey"),
          list("supp", method = "pairwise"), list(c("supp", "dose"), method = "reference", adjust = "bonferroni")),
     factors = c("supp", "dose"))
case("toothgrowth_slopes", "ToothGrowth", "len ~ supp * dose + I(dose**2)", "gaussian", "identity", gaussian(), FALSE,
     list(list("supp", method = "pairwise"), list("supp", at = list(dose = 1), method = "pairwise"),
          list(c("supp", "dose"), at = list(dose = c(0.5, 2)), level = 0.99)),
     numbers = "dose", factors = "supp")
case("mtcars_gamma", "mtcars", "mpg ~ C(cyl) + C(am) * wt + log(hp)", "gamma", "log", Gamma("log"), FALSE,
     list(list("cyl", type = "response", method = "pairwise", adjust = "tukey"),
          list("am", method = "pairwise"), list("cyl", weights = "proportional", method = "reference")),
     numbers = c("wt", "hp"), factors = c("cyl", "am"))
case("mtcars_inverse", "mtcars", "mpg ~ C(cyl) + wt", "gamma", "inverse", Gamma("inverse"), FALSE,
     list(list("cyl", type = "response", method = "pairwise", adjust = "tukey")),
     numbers = "wt", factors = "cyl")
case("insurance", "Insurance", "Claims ~ C(District) + Group + Age", "poisson", "log", poisson(), TRUE,
     list(list("Age", type = "response", method = "pairwise", adjust = "tukey"),
          list("Age", offset = 0, type = "response"),
          list("Group", weights = "proportional", method = "reference")),
     factors = c("District", "Group", "Age"), offset = "log(Holders)")

case("quine", "quine", "Days ~ Lrn + Eth * Sex * Age - Eth:Sex:Age", "quasipoisson", "log", quasipoisson(), FALSE,
     list(list("Lrn", weights = "proportional", method = "pairwise"), list("Eth", by = "Sex", weights = "proportional"),
          list("Eth", weights = "proportional", type = "response", method = "reference")),
     factors = c("Lrn", "Eth", "Age"))

write_cases("effects.json", "emmeans", SETTINGS, CASES)
cat(length(CASES), "cases\n")
