# What the scripts of this folder share: JSON, the data sets, and the reference
# fit of a generalized linear model.  Sourced, not run.

options(contrasts = c("contr.treatment", "contr.treatment"),
        stringsAsFactors = FALSE, warn = 1)

EPSILON <- 1e-15
MAXIT <- 200
SETTINGS <- "glm.control(epsilon = 1e-15, maxit = 200)"
SCORE_LIMIT <- 1e-9

# ---------------------------------------------------------------- text output

digits <- function(x) {                    # shortest text giving back the number
  short <- sprintf("%.15g", x)
  ifelse(is.na(x) | suppressWarnings(as.numeric(short)) == x, short, sprintf("%.17g", x))
}

quoted <- function(x) {
  x <- gsub("\\", "\\\\", x, fixed = TRUE)
  x <- gsub("\"", "\\\"", x, fixed = TRUE)
  paste0("\"", x, "\"")
}

scalar <- function(x) {
  if (is.na(x) && !is.nan(x)) return("null")
  if (is.character(x)) return(quoted(x))
  if (!is.finite(x)) stop("a number is not finite")
  sprintf("%.17g", x)
}

# NULL -> null, list -> object, vector made by array_json() -> array, matrix made
# by rows_json() -> array of its rows, else a scalar
json <- function(x) {
  if (is.null(x)) return("null")
  if (inherits(x, "rows_json"))
    return(paste0("[", paste(vapply(unclass(x), json, ""), collapse = ", "), "]"))
  if (inherits(x, "array_json"))
    return(paste0("[", paste(vapply(unclass(x), scalar, ""), collapse = ", "), "]"))
  if (is.list(x)) {
    if (!length(x)) return("{}")
    return(paste0("{", paste0(quoted(names(x)), ": ", vapply(x, json, ""),
                              collapse = ", "), "}"))
  }
  scalar(x)
}

array_json <- function(x) structure(unname(x), class = "array_json")

rows_json <- function(x)
  structure(lapply(seq_len(nrow(x)), function(i) array_json(x[i, ])), class = "rows_json")

record <- function(x)                      # one case, one line for each field
  paste0("  {", paste0(quoted(names(x)), ": ", vapply(x, json, ""),
                       collapse = ",\n   "), "}")


# ---------------------------------------------------------------------- data

DATA <- list()

# Store a data set: dots in names become underscores, factors become strings in
# sorted (C locale) order or, where all levels are numbers, numeric columns.
add <- function(name, frame) {
  frame <- as.data.frame(frame)
  names(frame) <- gsub(".", "_", names(frame), fixed = TRUE)
  stopifnot(all(grepl("^[A-Za-z][A-Za-z0-9_]*$", names(frame))),
            !anyDuplicated(names(frame)))
  for (column in names(frame)) {
    x <- frame[[column]]
    if (is.factor(x)) x <- as.character(x)
    if (is.logical(x)) x <- as.numeric(x)
    if (is.character(x)) {
      number <- suppressWarnings(as.numeric(x))
      if (!anyNA(number[!is.na(x)])) x <- number
    }
    if (is.character(x)) {
      stopifnot(!toupper(x) %in% c("", "NA", "NAN", "N/A", "NONE", "NULL",
                                   "TRUE", "FALSE"))
      x <- factor(x, levels = sort(unique(x), method = "radix"))
    } else x <- as.numeric(x)
    frame[[column]] <- x
  }
  rownames(frame) <- NULL
  text <- lapply(frame, function(x)
    ifelse(is.na(x), "", if (is.factor(x)) quoted(as.character(x)) else digits(x)))
  output <- file(file.path(here, "data", paste0(name, ".csv")), "wb")
  writeLines(c(paste(names(frame), collapse = ","),
               do.call(paste, c(unname(text), sep = ","))), output, sep = "\n")
  close(output)
  DATA[[name]] <<- frame
}

# A data set that another script has written, as add() left it.
stored <- function(name) {
  if (is.null(DATA[[name]])) {
    frame <- read.csv(file.path(here, "data", paste0(name, ".csv")))
    for (column in names(frame)) {
      x <- frame[[column]]
      frame[[column]] <- if (is.character(x)) factor(x, levels = sort(unique(x), method = "radix")) else as.numeric(x)
    }
    DATA[[name]] <<- frame
  }
  DATA[[name]]
}

# Every row as often as its column of frequencies says.
written_out <- function(frame, column) {
  frame <- frame[rep(seq_len(nrow(frame)), frame[[column]]), , drop = FALSE]
  rownames(frame) <- NULL
  frame
}


# ------------------------------------------------------------------- fitting

# The state of a model at given coefficients: X has full column rank; known says
# whether the dispersion is 1.
state <- function(beta, X, y, w, offset, family, known) {
  eta <- drop(X %*% beta) + offset
  if (!is.null(family$valideta) && !family$valideta(eta)) return(NULL)
  mu <- family$linkinv(eta)
  if (!is.null(family$validmu) && !family$validmu(mu)) return(NULL)
  slope <- family$mu.eta(eta)
  V <- family$variance(mu)
  root <- sqrt(w / V) * slope               # square root of the working weights
  s <- list(beta = beta, mu = mu, root = root, z = sqrt(w / V) * (y - mu))
  s$df <- sum(w > 0) - ncol(X)
  s$pearson <- sum(s$z^2)
  s$dispersion <- if (known) 1 else s$pearson / s$df
  A <- X * root
  s$score <- max(abs(crossprod(A, s$z)) / sqrt(colSums(A^2) * s$dispersion))
  s
}

# Fisher scoring from beta; the iterate with the least scaled score.
polish <- function(beta, X, y, w, offset, family, known) {
  best <- now <- state(beta, X, y, w, offset, family, known)
  if (is.null(best)) return(NULL)
  idle <- 0
  for (i in 1:1000) {
    step <- qr.coef(qr(X * now$root, LAPACK = TRUE), now$z)
    now <- state(now$beta + step, X, y, w, offset, family, known)
    if (is.null(now) || !is.finite(now$score)) break
    if (now$score < best$score) { best <- now; idle <- 0 } else idle <- idle + 1
    if (idle >= 8) break
  }
  best
}

as_r <- function(formula) gsub("\\bC\\(", "factor(", gsub("**", "^", formula, fixed = TRUE))

CASES <- list()

# Fit one case and put it on the list.  family and link are the names to record,
# fam is R's family object, extra are further fields that say which it is.
# known: the dispersion is 1.  bounded: means are proportions.  kind: what the
# weights are, "trials", "variance" or "frequency".  likelihood: NULL for R's own,
# NA where there is none, or a function of y, mu, w and the deviance.
reference <- function(name, data, formula, family, link, fam, known, bounded = FALSE,
                      weights = NULL, kind = "variance", offset = NULL, likelihood = NULL, extra = list()) {
  frame <- stored(data)
  if (kind == "frequency") frame <- written_out(frame, weights)
  r_formula <- as_r(formula)
  model <- as.formula(r_formula, env = globalenv())
  args <- list(model, family = fam, data = NULL)
  if (!is.null(weights) && kind != "frequency") {
    frame$.weights <- frame[[weights]]
    args$weights <- as.name(".weights")
  }
  if (!is.null(offset)) {
    frame$.offset <- eval(parse(text = offset), frame)
    args$offset <- as.name(".offset")
  }
  args$data <- frame
  drop_case <- function(why) message("DROPPED ", name, ": ", why)

  # glm.fit() takes epsilon / 1000 as the tolerance of its rank test, so aliased
  # designs (rank found here with the usual 1e-7) need a larger epsilon.
  mf <- model.frame(model, frame[stats::complete.cases(frame[intersect(
    c(all.vars(model), ".weights", ".offset"), names(frame))]), , drop = FALSE])
  X <- model.matrix(model, mf)
  aliased <- qr(X, tol = 1e-7)$rank < ncol(X)
  args$control <- glm.control(epsilon = if (aliased) 1e-10 else EPSILON, maxit = MAXIT)

  # starting points: R's own, least squares on the link scale, and (where there
  # is an intercept) the constant mean
  response <- model.response(mf)
  if (is.matrix(response)) response <- response[, 1] / rowSums(response)
  inner <- if (bounded) 0.9 * response + 0.05 else response
  o <- if (is.null(offset)) 0 else eval(parse(text = offset), frame)[as.integer(rownames(mf))]
  starts <- list(NULL)
  if (all(is.finite(fam$linkfun(inner)))) {
    b <- qr.coef(qr(X), fam$linkfun(inner) - o)
    b[is.na(b)] <- 0
    starts <- c(starts, list(b))
  }
  if (colnames(X)[1] == "(Intercept)")
    starts <- c(starts, list(c(fam$linkfun(mean(response)) - mean(o), rep(0, ncol(X) - 1))))

  fits <- list()
  for (start in starts) {
    args$start <- start
    separated <- FALSE
    fit <- tryCatch(withCallingHandlers(do.call("glm", args), warning = function(w) {
      if (grepl("numerically 0", conditionMessage(w))) separated <<- TRUE
      invokeRestart("muffleWarning")
    }), error = function(e) NULL)
    if (is.null(fit)) next
    if (separated) { fit$separated <- TRUE }
    keep <- !is.na(coef(fit))
    fit$best <- polish(coef(fit)[keep], model.matrix(fit)[, keep, drop = FALSE], fit$y,
                       fit$prior.weights, if (is.null(fit$offset)) 0 else fit$offset, fam, known)
    if (is.null(fit$best) || !is.finite(fit$best$score) ||
        fit$best$score > SCORE_LIMIT) next
    fit$best$deviance <- sum(fam$dev.resids(fit$y, fit$best$mu, fit$prior.weights))
    fits <- c(fits, list(fit))
  }
  if (!length(fits)) return(drop_case("no start reached a small score"))
  # the first start (R's own) is kept unless another is clearly better
  deviances <- vapply(fits, function(f) f$best$deviance, 0)
  if (diff(range(deviances)) > 1e-8 * (1 + min(deviances)))
    message("NOTE ", name, ": starts differ, deviances ", paste(format(deviances, digits = 12), collapse = " "))
  fit <- fits[[which(deviances <= min(deviances) + 1e-8 * (1 + min(deviances)))[1]]]
  if (isTRUE(fit$separated)) return(drop_case("fitted values numerically 0 or 1"))
  best <- fit$best
  keep <- !is.na(coef(fit))
  y <- fit$y
  w <- fit$prior.weights
  stopifnot(identical(colnames(X), names(coef(fit))), length(y) == nrow(X),
            sum(keep) == qr(X, tol = 1e-7)$rank)
  if (best$df < 1) return(drop_case("no residual degrees of freedom"))

  R <- qr.R(qr(model.matrix(fit)[, keep, drop = FALSE] * best$root, LAPACK = FALSE, tol = 1e-14))
  error <- sqrt(rowSums(backsolve(R, diag(ncol(R)))^2) * best$dispersion)
  spread <- function(x) replace(rep(NA_real_, length(keep)), keep, x)

  # AIC and log likelihood as glm() and logLik.glm() have them
  rank <- sum(keep)
  parameters <- rank + !known
  own <- is.null(likelihood)
  if (own) {
    n_trials <- if (bounded) w else rep(1, length(y))
    aic <- fam$aic(y, n_trials, best$mu, w, best$deviance) + 2 * rank
    likelihood <- parameters - aic / 2
  } else {
    likelihood <- if (is.function(likelihood)) likelihood(y, best$mu, w, best$deviance) else NA_real_
    aic <- 2 * (parameters - likelihood)
  }

  # guard: the polished fit is the one glm() reports, only with more digits
  near <- function(a, b, tol) all(abs(a - b) <= tol * (1 + abs(b)))
  plain <- summary(fit, dispersion = if (known) 1 else NULL)
  stopifnot(near(best$deviance, fit$deviance, 1e-7),
            near(best$beta, coef(fit)[keep], 1e-5),
            near(error, plain$coefficients[, 2], 1e-5),
            near(best$dispersion, plain$dispersion, 1e-6),
            !own || near(aic, fit$aic, 1e-6),
            !own || near(likelihood, as.numeric(logLik(fit)), 1e-6),
            best$df == fit$df.residual)

  # level order of every factor in use; numbers written C(x) stay numbers
  used <- intersect(all.vars(model), names(frame))
  levels_of <- list()
  for (column in used) {
    x <- frame[as.integer(rownames(mf)), column]
    if (is.factor(x)) {
      stopifnot(table(x) > 0)
      levels_of[[column]] <- array_json(levels(x))
    } else if (grepl(paste0("C(", column, ")"), formula, fixed = TRUE)) {
      values <- sort(unique(x))
      stopifnot(identical(as.character(values), sort(as.character(values), method = "radix")))
      levels_of[[column]] <- array_json(values)
    }
  }

  null_deviance <- fit$null.deviance
  CASES[[name]] <<- c(list(
    name = name, data = paste0(data, ".csv"), factors = levels_of,
    formula = formula, r_formula = r_formula, family = family, link = link), extra, list(
    weights = if (is.null(weights)) NULL else list(type = kind, column = weights),
    offset = offset,
    names = array_json(names(coef(fit))),
    coefficients = array_json(spread(best$beta)),
    standard_errors = array_json(spread(error)),
    deviance = best$deviance,
    null_deviance = if (is.finite(null_deviance)) null_deviance else NA_real_,
    log_likelihood = likelihood, aic = aic, dispersion = best$dispersion,
    pearson_chi2 = best$pearson, df_residual = best$df, df_null = fit$df.null,
    nobs = length(y), score = best$score))
  stopifnot(sum(names(CASES) == name) == 1)
  invisible()
}


# -------------------------------------------------------------------- output

# Everything a file of references holds: versions of R and packages, settings, cases.
write_cases <- function(file, packages, settings, cases) {
  version_of <- function(package) packageDescription(package)$Version
  versions <- c(list(R = paste(R.version$major, R.version$minor, sep = ".")),
                setNames(lapply(packages, version_of), packages))
  output <- file(file.path(here, file), "wb")
  writeLines(c("{",
               paste0("\"versions\": ", json(versions), ","),
               paste0("\"settings\": ", json(settings), ","),
               "\"cases\": [",
               paste(vapply(cases, record, ""), collapse = ",\n"),
               "]", "}"), output, sep = "\n")
  close(output)
}
